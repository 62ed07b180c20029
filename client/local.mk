
bin_PROGRAMS += client/virt-dr
noinst_LIBRARIES += client/libclient.a
noinst_PROGRAMS += client/print-completion

client_libclient_a_SOURCES = \
	client/command.h client/commands.c \
	client/completion.c client/completion.h \
	client/consistency_options.h \
	client/handle_bandwidth.c \
	client/handle_consistency.c \
	client/handle_events.c \
	client/handle_exports.c \
	client/handle_failover.c client/handle_reverse.c \
	client/guard_offline.c client/guard_offline.h \
	client/handle_guard.c \
	client/handle_host.c \
	client/handle_peer.c \
	client/handle_points.c \
	client/handle_seed.c \
	client/handle_task.c \
	client/handle_tests.c \
	client/handle_vm.c \
	client/handle_vm_tasks.c \
	client/handlers.h \
	client/help.c client/help.h \
	client/interrupt.c client/interrupt.h \
	client/invocation.c client/invocation.h \
	client/param.c client/param.h \
	client/point_options.c client/point_options.h \
	client/progress.c client/progress.h \
	client/report.c client/report.h \
	client/retention_options.c client/retention_options.h \
	client/seed_options.c client/seed_options.h \
	client/session.c client/session.h \
	client/show.c client/show.h client/show_replication.c \
	client/human.c client/human.h \
	client/wait.c client/wait.h \
	client/writer.c client/writer.h \
	client/writer_json.c \
	client/writer_ops.h \
	client/writer_table.c

CLIENT_LIBS = client/libclient.a $(COMMON_LIBS)

client_virt_dr_SOURCES = client/main.c
client_virt_dr_LDADD = $(CLIENT_LIBS)

# Prints conf/completion/virt-dr.bash; a test compares the file with it.
client_print_completion_SOURCES = client/print_completion.c
client_print_completion_LDADD = $(CLIENT_LIBS)
