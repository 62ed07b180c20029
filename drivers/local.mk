noinst_LIBRARIES += drivers/libdrivers.a

drivers_libdrivers_a_SOURCES = \
	drivers/capture.h \
	drivers/hypervisor.h drivers/hypervisor_testbed.h drivers/hypervisor_types.h \
	drivers/state.h \
	drivers/store.h drivers/store_types.h

include drivers/hypervisor/local.mk
include drivers/capture/local.mk
include drivers/script/local.mk
include drivers/store/local.mk
include drivers/state/local.mk
include drivers/fence/local.mk

DRIVERS_LIBS = drivers/libdrivers.a \
	$(LIBVIRT_LIBS) $(LIBNBD_LIBS) $(LIBXML_LIBS) $(SQLITE_LIBS)
