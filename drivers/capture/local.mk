# drivers/capture/
drivers_libdrivers_a_SOURCES += \
	drivers/capture/backup_job.c drivers/capture/backup_job.h \
	drivers/capture/lost_job.c drivers/capture/lost_job.h \
	drivers/capture/bitmap.c drivers/capture/bitmap.h \
	drivers/capture/checkpoint.c drivers/capture/checkpoint.h \
	drivers/capture/checkpoint_point.c drivers/capture/checkpoint_point.h \
	drivers/capture/fake.c drivers/capture/fake.h \
	drivers/capture/fleece.c drivers/capture/fleece.h \
	drivers/capture/generation.c drivers/capture/generation.h \
	drivers/capture/io_error.c drivers/capture/io_error.h \
	drivers/capture/nbd_disks.c drivers/capture/nbd_disks.h \
	drivers/capture/nbd_link.c drivers/capture/nbd_link.h \
	drivers/capture/nbd_reader.c drivers/capture/nbd_reader.h \
	drivers/capture/offline.c drivers/capture/offline.h \
	drivers/capture/offline_image.c drivers/capture/offline_image.h \
	drivers/capture/request.c drivers/capture/request.h \
	drivers/capture/scratch_files.c drivers/capture/scratch_files.h \
	drivers/capture/scratch_image.c drivers/capture/scratch_image.h \
	drivers/capture/scratch_watch.c drivers/capture/scratch_watch.h
