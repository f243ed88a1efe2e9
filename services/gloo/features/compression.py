"""Compression of answers for clients that accept gzip, brotli or Zstandard.

Each encoding is a filter of its own; a route switches all of them off.
"""

from __future__ import annotations

from typing import Any

import betterproto2

from protos import gloo
from protos.envoy import brotli, compressor, core, gzip, route, zstd
from services.gloo.plugin import ALL, Feature, HttpFilter, Patch, Scope, Stage
from shared.codec.encode import pack

FILTER = "envoy.filters.http.compressor"
BROTLI_FILTER, ZSTD_FILTER = f"{FILTER}.brotli", f"{FILTER}.zstd"
GZIP_RANGES = {"memoryLevel": range(1, 10), "windowBits": range(9, 16)}
BROTLI_RANGES = {"quality": range(12), "windowBits": range(10, 25)}
ZSTD_RANGES = {"compressionLevel": range(1, 23)}
LEVELS = {
    gloo.GzipCompressionLevelEnum.DEFAULT: gzip.GzipCompressionLevel.DEFAULT_COMPRESSION,
    gloo.GzipCompressionLevelEnum.BEST: gzip.GzipCompressionLevel.BEST_COMPRESSION,
    gloo.GzipCompressionLevelEnum.SPEED: gzip.GzipCompressionLevel.BEST_SPEED,
}
STRATEGIES = {
    gloo.GzipCompressionStrategy.DEFAULT: gzip.GzipCompressionStrategy.DEFAULT_STRATEGY,
    gloo.GzipCompressionStrategy.FILTERED: gzip.GzipCompressionStrategy.FILTERED,
    gloo.GzipCompressionStrategy.HUFFMAN: gzip.GzipCompressionStrategy.HUFFMAN_ONLY,
    gloo.GzipCompressionStrategy.RLE: gzip.GzipCompressionStrategy.RLE,
}


Encoding = gloo.Gzip | gloo.Brotli | gloo.Zstd


def with_gzip(wanted: gloo.Gzip, scope: Scope) -> Patch:
    numbers = {"memoryLevel": wanted.memory_level, "windowBits": wanted.window_bits}
    check(numbers, GZIP_RANGES, scope)
    library = gzip.Gzip(
        memory_level=wanted.memory_level,
        compression_level=LEVELS[wanted.compression_level],
        compression_strategy=STRATEGIES[wanted.compression_strategy],
        window_bits=wanted.window_bits,
    )
    return Patch(filters={FILTER: compressing("gzip", library, wanted, hides(wanted, scope))})


def with_brotli(wanted: gloo.Brotli, scope: Scope) -> Patch:
    check({"quality": wanted.quality, "windowBits": wanted.window_bits}, BROTLI_RANGES, scope)
    library = brotli.Brotli(quality=wanted.quality, window_bits=wanted.window_bits)
    return Patch(filters={BROTLI_FILTER: compressing("brotli", library, wanted, hides(wanted, scope))})


def with_zstd(wanted: gloo.Zstd, scope: Scope) -> Patch:
    check({"compressionLevel": wanted.compression_level}, ZSTD_RANGES, scope)
    library = zstd.Zstd(compression_level=wanted.compression_level, enable_checksum=wanted.enable_checksum)
    return Patch(filters={ZSTD_FILTER: compressing("zstd", library, wanted, hides(wanted, scope))})


def check(numbers: dict[str, int | None], ranges: dict[str, range], scope: Scope) -> None:
    for name, value in numbers.items():
        allowed = ranges[name]
        if value is not None and value not in allowed:
            scope.error(name, f"{value} is out of range; {allowed[0]} to {allowed[-1]}")


def hides(wanted: Encoding, scope: Scope) -> bool:
    """Whether this filter is to hide from the upstream what the client accepts. If one encoding asks for that
    the last does it, for filters after it could compress nothing."""
    options = (scope.options.gzip, scope.options.brotli, scope.options.zstd)  # in the order of their filters
    there = [each for each in options if each is not None]
    return wanted is there[-1] and any(each.remove_accept_encoding_header for each in there)


def compressing(
    name: str, library: betterproto2.Message, wanted: Encoding, hiding: bool = False
) -> compressor.Compressor:
    """Browsers like all encodings equally and name gzip first, which Envoy would then take."""
    return compressor.Compressor(
        choose_first=name != "gzip",
        compressor_library=core.TypedExtensionConfig(
            name=f"envoy.compression.{name}.compressor", typed_config=pack(library)
        ),
        response_direction_config=compressor.CompressorResponseDirectionConfig(
            common_config=compressor.CompressorCommonDirectionConfig(
                min_content_length=wanted.content_length, content_type=list(wanted.content_type)
            ),
            disable_on_etag_header=wanted.disable_on_etag_header,
            remove_accept_encoding_header=hiding,
        ),
    )


def leave_alone(wanted: gloo.CompressionPerRoute, scope: Scope) -> Patch:
    if not wanted.disabled:
        return Patch()
    off = route.FilterConfig(disabled=True)
    return Patch(filters=dict.fromkeys((FILTER, BROTLI_FILTER, ZSTD_FILTER), off))


def waiting(name: str, kind: str, library: betterproto2.Message, plain: Any) -> HttpFilter:
    return HttpFilter(name=name, stage=Stage.FAULT, config=compressing(kind, library, plain))


FEATURES = (
    Feature(
        name="gzip",
        reads={"Gzip": ALL},
        on_listener=with_gzip,
        filter=waiting(FILTER, "gzip", gzip.Gzip(), gloo.Gzip()),
    ),
    Feature(
        name="brotli",
        reads={"Brotli": ALL},
        on_listener=with_brotli,
        filter=waiting(BROTLI_FILTER, "brotli", brotli.Brotli(), gloo.Brotli()),
    ),
    Feature(
        name="zstd",
        reads={"Zstd": ALL},
        on_listener=with_zstd,
        filter=waiting(ZSTD_FILTER, "zstd", zstd.Zstd(), gloo.Zstd()),
    ),
    Feature(
        name="compression",
        reads={"CompressionPerRoute": ALL},
        on_virtual_host=leave_alone,
        on_route=leave_alone,
    ),
)
