noinst_LIBRARIES += daemon/libdaemon.a

daemon_libdaemon_a_SOURCES = \
	daemon/address.c daemon/address.h \
	daemon/rest.h \
	daemon/stream.c daemon/stream.h daemon/stream_private.h \
	daemon/stream_connect.c daemon/stream_io.c daemon/stream_listener.c \
	daemon/stream_pace.c daemon/stream_send.c \
	daemon/tls.c daemon/tls.h \
	daemon/workers.c daemon/workers.h

DAEMON_LIBS = daemon/libdaemon.a $(DRIVERS_LIBS) $(COMMON_LIBS) $(LIBEVENT_LIBS) $(INIH_LIBS)
