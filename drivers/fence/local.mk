drivers_libdrivers_a_SOURCES += \
	drivers/fence/command.c drivers/fence/command.h
