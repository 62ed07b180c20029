drivers_libdrivers_a_SOURCES += \
	drivers/state/sqlite.c drivers/state/sqlite.h
