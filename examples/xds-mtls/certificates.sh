#!/bin/sh
# An authority, a certificate for gloo and one for each gateway named: certificates.sh FOLDER GLOO-NAME GATEWAY…
# For trying out. In earnest, have your own authority issue them, with the same alternative names.
set -eu
folder=$1 gloo=$2
shift 2
umask 077
mkdir -p "$folder"
cd "$folder"

key() { openssl ecparam -genkey -name prime256v1 -noout -out "$1.key"; }

issue() { # NAME ALTERNATIVE-NAMES
  key "$1"
  openssl req -new -key "$1.key" -subj "/CN=$1" -out "$1.csr"
  printf 'subjectAltName=%s\n' "$2" >"$1.ext"
  openssl x509 -req -in "$1.csr" -CA ca.pem -CAkey ca.key -CAcreateserial -days 90 \
    -extfile "$1.ext" -out "$1.pem.new" 2>/dev/null
  mv "$1.pem.new" "$1.pem"
  rm "$1.csr" "$1.ext"
}

if [ ! -e ca.pem ]; then
  key ca
  openssl req -x509 -new -key ca.key -subj "/CN=xDS authority" -days 3650 -out ca.pem
fi
issue gloo "DNS:$gloo"
for gateway in "$@"; do
  issue "$gateway" "URI:spiffe://example.org/gateway/$gateway"
done
