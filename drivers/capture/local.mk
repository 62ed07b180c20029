# drivers/capture/
drivers_libdrivers_a_SOURCES += \
	drivers/capture/backup_job.c drivers/capture/backup_job.h \
	drivers/capture/checkpoint.c drivers/capture/checkpoint.h \
	drivers/capture/checkpoint_point.c drivers/capture/checkpoint_point.h \
	drivers/capture/fake.c drivers/capture/fake.h \
	drivers/capture/nbd_link.c drivers/capture/nbd_link.h \
	drivers/capture/nbd_reader.c drivers/capture/nbd_reader.h \
	drivers/capture/scratch_watch.c drivers/capture/scratch_watch.h
