"""Objects as tables, drawn as glooctl has always drawn them. All pure: documents in, text out."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

Document = Mapping[str, Any]
Row = Sequence[str]
WIDTH = 30  # a cell is wrapped at about this many characters, at spaces only

UPSTREAM_TYPES = {
    "aws": "AWS Lambda",
    "azure": "Azure",
    "consul": "Consul",
    "awsEc2": "AWS EC2",
    "kube": "Kubernetes",
    "static": "Static",
}


def draw(header: Row, rows: Iterable[Row], width: int = WIDTH) -> str:
    """A table with ASCII borders: the header centred, cells to the left, long cells on several lines."""
    lines = [line for row in rows for line in _wrapped(row, width)]
    widths = [max(len(row[i]) for row in [header, *lines]) for i in range(len(header))]
    border = "+" + "+".join("-" * (width + 2) for width in widths) + "+"
    head = "|".join(f" {centred(cell, width)} " for cell, width in zip(header, widths, strict=True))
    body = [
        "|".join(f" {cell.ljust(width)} " for cell, width in zip(line, widths, strict=True)) for line in lines
    ]
    return "\n".join(
        [border, f"|{head}|", border, *(f"|{line}|" for line in body), *([border] if body else [])]
    )


def centred(cell: str, width: int) -> str:
    """*cell* in the middle, an odd blank to its right."""
    left = (width - len(cell)) // 2
    return " " * left + cell.ljust(width - left)


def _wrapped(row: Row, width: int) -> list[Row]:
    cells = [
        [
            part
            for line in cell.split("\n")
            for part in (textwrap.wrap(line, width, break_long_words=False, break_on_hyphens=False) or [""])
        ]
        for cell in row
    ]
    height = max(len(cell) for cell in cells)
    return [[cell[i] if i < len(cell) else "" for cell in cells] for i in range(height)]


def stacked(*columns: Sequence[str]) -> list[Row]:
    """Columns of different heights as rows, the shorter ones blank below."""
    height = max(len(column) for column in columns)
    return [[column[i] if i < len(column) else "" for column in columns] for i in range(height)]


# -- status ---------------------------------------------------------------------------------------------

_BADNESS = ("Accepted", "Pending", "Warning", "Rejected")
_BY_NUMBER = ("Pending", "Accepted", "Rejected", "Warning")  # as Gloo 1.2.4 writes them


def statuses(document: Document) -> list[Document]:
    """The statuses of an object, of either dialect."""
    several = (document.get("namespacedStatuses") or {}).get("statuses") or {}
    one = document.get("status")
    return [*several.values(), *([one] if one else [])]


def state(document: Document) -> str:
    """The object's state in a word; the worst, where several controllers have spoken."""
    states = [_word(status.get("state")) for status in statuses(document)]
    return max(states, key=_BADNESS.index, default="Pending") if set(states) <= set(_BADNESS) else states[0]


def _word(state: object) -> str:
    if isinstance(state, int) and 0 <= state < len(_BY_NUMBER):
        return _BY_NUMBER[state]
    return str(state or "Pending")


def status_cell(document: Document) -> list[str]:
    """The state, and below it what any part (a Proxy) says otherwise."""
    lines = [state(document)]
    for status in statuses(document):
        for name, part in sorted((status.get("subresourceStatuses") or {}).items()):
            if (said := _word(part.get("state"))) != "Accepted" and lines[0] == "Accepted":
                reason = f": {part['reason']}" if part.get("reason") else ""
                lines.append(f"{name} {said}{reason}")
    return lines


def reasons(document: Document) -> list[str]:
    return [str(status["reason"]) for status in statuses(document) if status.get("reason")]


# -- kinds ----------------------------------------------------------------------------------------------


def upstreams(documents: Iterable[Document], *, wide: bool = False) -> str:
    header = ["UPSTREAM", "TYPE", "STATUS", "DETAILS"]
    rows: list[Row] = []
    for document in documents:
        kind = next((word for word in UPSTREAM_TYPES if word in document), "")
        columns = [[name_of(document)], [UPSTREAM_TYPES.get(kind, "Unknown")], status_cell(document)]
        rows += stacked(*columns, [*upstream_details(document, kind), ""], *_wide(document, wide))
    return draw([*header, *(["NAMESPACE", "REASON"] if wide else [])], rows)


def upstream_details(document: Document, kind: str) -> list[str]:
    spec = document.get(kind) or {}
    lines: list[str] = []
    if kind == "consul":
        lines = [
            f"svc name: {spec.get('serviceName', '')}",
            f"svc tags: [{' '.join(spec.get('serviceTags') or [])}]",
        ]
    elif kind == "static":
        hosts = spec.get("hosts") or []
        lines = ["hosts:", *(f"- {host.get('addr', '')}:{host.get('port', 0)}" for host in hosts)]
    elif kind == "aws":
        functions = [f"- {function.get('logicalName', '')}" for function in spec.get("lambdaFunctions") or []]
        lines = [
            f"region: {spec.get('region', '')}",
            f"secret: {ref_text(spec.get('secretRef'))}",
            "functions:",
        ]
        lines += functions
    elif kind == "azure":
        lines = [
            f"function app name: {spec.get('functionAppName', '')}",
            f"secret: {ref_text(spec.get('secretRef'))}",
        ]
        lines += [
            "functions:",
            *(f"- {function.get('functionName', '')}" for function in spec.get("functions") or []),
        ]
    elif kind == "awsEc2":
        lines = [
            f"role:           {spec.get('roleArn', '')}",
            f"uses public ip: {bool(spec.get('publicIp'))}",
        ]
        lines += [f"port:           {spec.get('port', 80)}"]
    elif kind == "kube":
        lines = [
            f"svc name:      {spec.get('serviceName', '')}",
            f"svc namespace: {spec.get('serviceNamespace', '')}",
        ]
        lines += [f"port:          {spec.get('servicePort', 0)}"]
    return lines + service_spec_details(spec.get("serviceSpec") or {})


def service_spec_details(spec: Document) -> list[str]:
    if "rest" in spec:
        functions = sorted((spec["rest"] or {}).get("transformations") or {})
        return ["REST service:", "functions:", *(f"- {function}" for function in functions)]
    lines: list[str] = []
    for service in (spec.get("grpc") or {}).get("grpcServices") or []:
        lines += [
            f"  {service.get('serviceName', '')}",
            *(f"  - {name}" for name in service.get("functionNames") or []),
        ]
    return ["gRPC service:", *lines] if "grpc" in spec else []


def virtual_services(documents: Iterable[Document], *, wide: bool = False) -> str:
    header = ["VIRTUAL SERVICE", "DISPLAY NAME", "DOMAINS", "SSL", "STATUS", "LISTENERPLUGINS", "ROUTES"]
    rows: list[Row] = []
    for document in documents:
        host = document.get("virtualHost") or {}
        columns = [
            [name_of(document)],
            [str(document.get("displayName") or "")],
            [", ".join(host.get("domains") or [])],
            [ssl_word(document.get("sslConfig"))],
            status_cell(document),
            [""],
            route_lines(host.get("routes") or []),
        ]
        rows += stacked(*columns, *_wide(document, wide))
    return draw([*header, *(["NAMESPACE", "REASON"] if wide else [])], rows)


def ssl_word(config: Document | None) -> str:
    if config is None:
        return "none"
    words = {"secretRef": "secret_ref", "sslFiles": "ssl_files"}
    return next((word for field, word in words.items() if field in config), "unknown")


def route_tables(documents: Iterable[Document], *, wide: bool = False) -> str:
    rows: list[Row] = []
    for document in documents:
        columns = [[name_of(document)], route_lines(document.get("routes") or []), status_cell(document)]
        rows += stacked(*columns, *_wide(document, wide))
    return draw(["ROUTE TABLE", "ROUTES", "STATUS", *(["NAMESPACE", "REASON"] if wide else [])], rows)


def option_objects(kind: str, documents: Iterable[Document], *, wide: bool = False) -> str:
    """Options that are objects, by the heading of their *kind*: which there are, not what they say."""
    rows: list[Row] = []
    for document in documents:
        names = [", ".join(document.get("options") or {})]
        columns = [[name_of(document)], names, used_by(document) or [""], status_cell(document)]
        rows += stacked(*columns, *_wide(document, wide))
    header = [kind, "OPTIONS", "USED BY", "STATUS"]
    return draw([*header, *(["NAMESPACE", "REASON"] if wide else [])], rows)


def matchable_gateways(kind: str, documents: Iterable[Document], *, wide: bool = False) -> str:
    """Parts of hybrid gateways, by the heading of their *kind*: what each takes, and who uses it."""
    rows: list[Row] = []
    for document in documents:
        matcher = document.get("matcher") or {}
        tls = matcher.get("sslConfig")
        ranges = matcher.get("sourcePrefixRanges") or []
        columns = [
            [name_of(document)],
            ["" if tls is None else ", ".join(tls.get("sniDomains") or ["*"])],
            [f"{each.get('addressPrefix', '')}/{each.get('prefixLen', 0)}" for each in ranges] or [""],
            used_by(document) or [""],
            status_cell(document),
        ]
        rows += stacked(*columns, *_wide(document, wide))
    header = [kind, "TLS", "SOURCES", "USED BY", "STATUS"]
    return draw([*header, *(["NAMESPACE", "REASON"] if wide else [])], rows)


def used_by(document: Document) -> list[str]:
    """The objects that a status says use this one."""
    told = (status.get("details") for status in statuses(document))
    return [
        str(user) for details in told if isinstance(details, dict) for user in details.get("usedBy") or ()
    ]


def proxies(documents: Iterable[Document], *, wide: bool = False) -> str:
    rows: list[Row] = []
    for document in documents:
        listeners = document.get("listeners") or []
        binds = [f"{one.get('bindAddress', '')}:{one.get('bindPort', 0)}" for one in listeners]
        hosts = sum(len(part.get("virtualHosts") or []) for one in listeners for part in http_parts(one))
        rows += stacked(
            [name_of(document)], binds, [str(hosts)], status_cell(document), *_wide(document, wide)
        )
    return draw(
        ["PROXY", "LISTENERS", "VIRTUAL HOSTS", "STATUS", *(["NAMESPACE", "REASON"] if wide else [])], rows
    )


def http_parts(listener: Document) -> list[Document]:
    """What of a listener is HTTP."""
    matched = (listener.get("hybridListener") or {}).get("matchedListeners") or []
    return [part for each in (listener, *matched) if (part := each.get("httpListener"))]


def gateways(documents: Iterable[Document], *, wide: bool = False) -> str:
    rows: list[Row] = []
    for document in documents:
        kinds = {"httpGateway": "HTTP", "tcpGateway": "TCP", "hybridGateway": "Hybrid", "udpGateway": "UDP"}
        columns = [
            [name_of(document)],
            [next((word for field, word in kinds.items() if field in document), "Unknown")],
            [f"{document.get('bindAddress', '')}:{document.get('bindPort', 0)}"],
            ["true" if document.get("ssl") else "false"],
            [", ".join(document.get("proxyNames") or ["gateway-proxy"])],
            status_cell(document),
        ]
        rows += stacked(*columns, *_wide(document, wide))
    header = ["GATEWAY", "TYPE", "BIND", "SSL", "PROXIES", "STATUS"]
    return draw([*header, *(["NAMESPACE", "REASON"] if wide else [])], rows)


def upstream_groups(documents: Iterable[Document], *, wide: bool = False) -> str:
    rows: list[Row] = []
    for document in documents:
        members = document.get("destinations") or []
        total = sum(int(member.get("weight") or 0) for member in members)
        details: list[str] = []
        for number, member in enumerate(members):
            details += ["---"] if number else []
            details += group_member_details(member, total)
        columns = [[name_of(document)], [state(document)], [str(total)], [*details, ""]]
        rows += stacked(*columns, *_wide(document, wide))
    header = ["UPSTREAM GROUP", "STATUS", "TOTAL WEIGHT", "DETAILS"]
    return draw([*header, *(["NAMESPACE", "REASON"] if wide else [])], rows)


def artifacts(documents: Iterable[Document], *, wide: bool = False) -> str:
    """Which texts there are, not what they say."""
    rows: list[Row] = []
    for document in documents:
        texts = [f"{key} ({len(text)} bytes)" for key, text in (document.get("data") or {}).items()]
        namespace = (document.get("metadata") or {}).get("namespace", "")
        rows += stacked([name_of(document)], texts or ["none"], *([[namespace]] if wide else []))
    return draw(["ARTIFACT", "DATA", *(["NAMESPACE"] if wide else [])], rows)


def group_member_details(member: Document, total: int) -> list[str]:
    destination = member.get("destination") or {}
    weight = int(member.get("weight") or 0)
    if "upstream" in destination:
        ref = destination["upstream"] or {}
        lines = [
            "destination type: Upstream",
            f"namespace: {ref.get('namespace', '')}",
            f"name: {ref.get('name', '')}",
        ]
    elif "consul" in destination:
        spec = destination["consul"] or {}
        lines = ["destination type: Consul", f"service name: {spec.get('serviceName', '')}"]
        lines += [
            f"data centers: [{' '.join(spec.get('dataCenters') or [])}]",
            f"tags: [{' '.join(spec.get('tags') or [])}]",
        ]
    else:
        lines = [f"destination type: {'Kube' if 'kube' in destination else 'Unknown'}"]
    if values := (destination.get("subset") or {}).get("values"):
        lines.append("subset: " + ", ".join(f"{key}={value}" for key, value in sorted(values.items())))
    return [*lines, f"weight: {weight}   % total: {weight / total if total else 0:.2f}"]


def _wide(document: Document, wide: bool) -> list[list[str]]:
    if not wide:
        return []
    return [[str((document.get("metadata") or {}).get("namespace") or "")], reasons(document) or [""]]


# -- routes ---------------------------------------------------------------------------------------------


def route_lines(routes: Iterable[Document]) -> list[str]:
    return [f"{matchers_text(route)} -> {destination_text(route)}" for route in routes] or [""]


def matchers_text(route: Document) -> str:
    return ", ".join(path_text(matcher) for matcher in route.get("matchers") or [{"prefix": "/"}])


def path_text(matcher: Document) -> str:
    return str(next((matcher[word] for word in ("prefix", "exact", "regex") if word in matcher), ""))


def destination_text(route: Document) -> str:
    """Where a route leads, in a few words."""
    if (action := route.get("routeAction")) is not None:
        if "single" in action:
            return single_text(action["single"] or {})
        if "multi" in action:
            return f"{len((action['multi'] or {}).get('destinations') or [])} destinations"
        if "upstreamGroup" in action:
            ref = action["upstreamGroup"] or {}
            return f"upstream group: {ref.get('name', '')}.{ref.get('namespace', '')}"
        return f"cluster header: {action['clusterHeader']}" if "clusterHeader" in action else ""
    if (redirect := route.get("redirectAction")) is not None:
        return str(redirect.get("hostRedirect") or "redirect")
    if (response := route.get("directResponseAction")) is not None:
        return str(response.get("status", ""))
    if (delegate := route.get("delegateAction")) is not None:
        if "selector" in delegate:
            labels = (delegate["selector"] or {}).get("labels") or {}
            return ", ".join(f"{key}={value}" for key, value in sorted(labels.items())) + " (route tables)"
        return f"{ref_text(delegate.get('ref') or delegate)} (route table)"
    return ""


def single_text(destination: Document) -> str:
    if "consul" in destination:
        return f"{(destination['consul'] or {}).get('serviceName', '')} (consul service)"
    return f"{ref_text(destination.get('upstream'))} (upstream)"


def routes(listed: Sequence[Document]) -> str:
    """The routes of one object, one table; ID is the ``--index`` that add and remove take."""
    rows = []
    for number, route in enumerate(listed):
        matchers = route.get("matchers") or [{"prefix": "/"}]
        rows.append(
            [
                str(number),
                "\n".join(path_text(matcher) for matcher in matchers),
                "\n".join(path_kind(matcher) for matcher in matchers),
                "\n".join(" ".join(matcher.get("methods") or ["*"]) for matcher in matchers),
                "\n".join(headers_text(matcher) for matcher in matchers),
                destination_text(route),
            ]
        )
    return draw(["ID", "MATCHERS", "TYPES", "VERBS", "HEADERS", "ACTION"], rows)


def path_kind(matcher: Document) -> str:
    words = {
        "prefix": "Path Prefix",
        "exact": "Exact Path",
        "regex": "Regex Path",
        "connectMatcher": "CONNECT",
    }
    return next((word for field, word in words.items() if field in matcher), "Unknown")


def headers_text(matcher: Document) -> str:
    return " ".join(f"{one.get('name', '')}:{one.get('value', '')};" for one in matcher.get("headers") or [])


# -- small things ---------------------------------------------------------------------------------------


def name_of(document: Document) -> str:
    return str((document.get("metadata") or {}).get("name") or "")


def ref_text(ref: Document | None) -> str:
    ref = ref or {}
    return (
        f"{ref.get('namespace', '')}.{ref.get('name', '')}"
        if ref.get("namespace")
        else str(ref.get("name", ""))
    )
