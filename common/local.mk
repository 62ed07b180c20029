noinst_LIBRARIES += common/libcommon.a

common_libcommon_a_SOURCES = \
	common/block_hash.c common/block_hash.h \
	common/cancel.c common/cancel.h \
	common/error.c common/error.h common/error_codes.def \
	common/http.c common/http.h \
	common/id.c common/id.h \
	common/json.c common/json.h \
	common/log.c common/log.h \
	common/mem.c common/mem.h \
	common/sse.c common/sse.h \
	common/text.c common/text.h \
	common/units.c common/units.h \
	common/wire.c common/wire.h \
	common/xxh3.h

COMMON_LIBS = common/libcommon.a \
	$(CURL_LIBS) $(JSONC_LIBS) $(ZSTD_LIBS) $(XXHASH_LIBS) $(OPENSSL_LIBS) $(SYSTEMD_LIBS)
