"""Compression of answers for clients that accept gzip."""

from __future__ import annotations

from protos import gloo
from protos.envoy import compressor, core, gzip
from services.gloo.plugin import ALL, Feature, HttpFilter, Patch, Scope, Stage
from shared.codec.encode import pack

FILTER = "envoy.filters.http.compressor"
LIBRARY = "envoy.compression.gzip.compressor"
MEMORY_LEVELS = range(1, 10)
WINDOW_BITS = range(9, 16)
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


def compress(wanted: gloo.Gzip, scope: Scope) -> Patch:
    for name, value, allowed in (
        ("memoryLevel", wanted.memory_level, MEMORY_LEVELS),
        ("windowBits", wanted.window_bits, WINDOW_BITS),
    ):
        if value is not None and value not in allowed:
            scope.error(name, f"{value} is out of range; {allowed[0]} to {allowed[-1]}")
    return Patch(filters={FILTER: translate(wanted)})


def translate(wanted: gloo.Gzip) -> compressor.Compressor:
    library = gzip.Gzip(
        memory_level=wanted.memory_level,
        compression_level=LEVELS[wanted.compression_level],
        compression_strategy=STRATEGIES[wanted.compression_strategy],
        window_bits=wanted.window_bits,
    )
    return compressor.Compressor(
        compressor_library=core.TypedExtensionConfig(name=LIBRARY, typed_config=pack(library)),
        response_direction_config=compressor.CompressorResponseDirectionConfig(
            common_config=compressor.CompressorCommonDirectionConfig(
                min_content_length=wanted.content_length, content_type=list(wanted.content_type)
            ),
            disable_on_etag_header=wanted.disable_on_etag_header,
            remove_accept_encoding_header=wanted.remove_accept_encoding_header,
        ),
    )


FEATURES = (
    Feature(
        name="gzip",
        reads={"Gzip": ALL},
        on_listener=compress,
        filter=HttpFilter(name=FILTER, stage=Stage.FAULT, config=translate(gloo.Gzip())),
    ),
)
