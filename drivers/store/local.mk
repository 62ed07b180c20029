drivers_libdrivers_a_SOURCES += \
	drivers/store/apply.c drivers/store/apply.h \
	drivers/store/base.c drivers/store/base.h \
	drivers/store/child.c drivers/store/child.h \
	drivers/store/clusters.c drivers/store/clusters.h \
	drivers/store/folder.c drivers/store/folder.h \
	drivers/store/image.c drivers/store/image.h \
	drivers/store/journal.c drivers/store/journal.h \
	drivers/store/layout.c drivers/store/layout.h \
	drivers/store/mark.c drivers/store/mark.h \
	drivers/store/overlay.c drivers/store/overlay.h \
	drivers/store/pace.c drivers/store/pace.h \
	drivers/store/qcow2.c drivers/store/qcow2.h \
	drivers/store/qsd.c drivers/store/qsd.h \
	drivers/store/replica.c drivers/store/replica.h \
	drivers/store/sums.c drivers/store/sums.h \
	drivers/store/tip.c drivers/store/tip.h
