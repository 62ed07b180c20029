# drivers/script/
drivers_libdrivers_a_SOURCES += drivers/script/script.c drivers/script/script.h
