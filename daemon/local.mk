noinst_LIBRARIES += daemon/libdaemon.a

daemon_libdaemon_a_SOURCES = \
	daemon/address.c daemon/address.h \
	daemon/api.c daemon/api.h daemon/api_private.h \
	daemon/api_bandwidth.c daemon/api_consistency.c daemon/api_exports.c daemon/api_guard.c daemon/api_handover.c daemon/api_metrics.c daemon/api_failover.c daemon/api_peers.c daemon/api_prepare.c daemon/api_points.c \
	daemon/api_seeds.c \
	daemon/api_replications.c daemon/api_tests.c \
	daemon/auxiliary.c daemon/auxiliary.h \
	daemon/bandwidth.c daemon/bandwidth.h \
	daemon/capture_choice.c daemon/capture_choice.h \
	daemon/comparison.c daemon/comparison.h \
	daemon/config.c daemon/config.h daemon/config_keys.def \
	daemon/config_private.h daemon/config_value.c \
	daemon/consistency.c daemon/consistency.h \
	daemon/contact.c daemon/contact.h \
	daemon/credentials.c daemon/credentials.h \
	daemon/cycle.c daemon/cycle.h daemon/cycle_blobs.c daemon/cycle_compare.c \
	daemon/cycle_disks.c daemon/cycle_latency.c daemon/cycle_move.c daemon/cycle_private.h daemon/cycle_records.c daemon/cycle_sync.c \
	daemon/cycle_verify.c daemon/cycle_verify.h \
	daemon/daemon.c daemon/daemon.h \
	daemon/event_libvirt.c daemon/event_libvirt.h \
	daemon/events.c daemon/events.h \
	daemon/exchange.c daemon/exchange.h \
	daemon/export_server.c daemon/export_server.h \
	daemon/exports.c daemon/exports.h \
	daemon/failover_after.c daemon/failover_after.h daemon/failover_fence.c daemon/failover_images.c daemon/failover_source.c daemon/failover_steps.c daemon/failover_steps.h \
	daemon/freeze.c daemon/freeze.h \
	daemon/guard.c daemon/guard.h daemon/guard_file.c daemon/guard_file.h \
	daemon/guard_override.c daemon/guard_override.h daemon/guard_sentence.c daemon/guard_sentence.h \
	daemon/guard_source.c daemon/guard_source.h daemon/guard_status.c daemon/guard_status.h \
	daemon/handover.c daemon/handover.h daemon/handover_take.c daemon/handover_target.c \
	daemon/imprint.c daemon/imprint.h \
	daemon/latency.c daemon/latency.h \
	daemon/leftovers.c daemon/leftovers.h \
	daemon/mark_pace.c daemon/mark_pace.h \
	daemon/op.c daemon/op.h daemon/ops.c \
	daemon/ops.h daemon/ops_clone.c daemon/ops_export.c daemon/ops_export_seed.c \
	daemon/ops_commit.c daemon/ops_flatten.c daemon/flatten.c daemon/flatten.h \
	daemon/ops_failover.c daemon/ops_failover.h daemon/ops_handover.c daemon/ops_import_seed.c \
	daemon/ops_protect.c daemon/ops_release.c daemon/ops_resync.c \
	daemon/ops_reverse.c daemon/api_reverse.c daemon/protect_disks.c daemon/protect_disks.h \
	daemon/images_used.c daemon/images_used.h daemon/old_folders.c daemon/old_folders.h \
	daemon/homecoming.c daemon/homecoming.h daemon/ops_failback.c daemon/planned_steps.h \
	daemon/originals.c daemon/originals.h \
	daemon/reversal.c daemon/reversal.h daemon/reversal_target.c \
	daemon/divergence.c daemon/divergence.h daemon/divergence_target.c \
	daemon/ops_test_cleanup.c daemon/ops_test_failover.c \
	daemon/ops_undo.c \
	daemon/ops_abandon.c daemon/ops_planned.c daemon/ops_prepare.c daemon/undo_steps.c daemon/undo_steps.h \
	daemon/kept.c daemon/kept.h daemon/ops_resolve.c daemon/api_resolve.c \
	daemon/ops_scrub.c daemon/ops_sync.c daemon/ops_unprotect.c daemon/ops_verify.c \
	daemon/peers.c daemon/peers.h daemon/peers_private.h \
	daemon/peers_connections.c daemon/peers_contact.c daemon/peers_pairing.c \
	daemon/prepare.c daemon/prepare.h \
	daemon/point_overlay.c daemon/point_overlay.h \
	daemon/point_select.c daemon/point_select.h \
	daemon/points.c daemon/points.h \
	daemon/replica.c daemon/replica.h daemon/replica_compare.c \
	daemon/replica_private.h daemon/replica_serve.c daemon/replica_serve.h \
	daemon/readiness.c daemon/readiness.h daemon/readiness_host.c \
	daemon/readiness_source.c daemon/readiness_target.c \
	daemon/replication.c daemon/replication.h \
	daemon/replication_types.c daemon/replication_types.h \
	daemon/replication_view.c daemon/replication_view.h \
	daemon/retention.c daemon/retention.h \
	daemon/resync.c daemon/resync.h \
	daemon/rest.c daemon/rest.h daemon/rest_private.h \
	daemon/rest_events.c daemon/rest_listen.c daemon/rest_route.c \
	daemon/scheduler.c daemon/scheduler.h \
	daemon/seed.c daemon/seed.h \
	daemon/seed_capture.c daemon/seed_capture.h \
	daemon/seed_source.c daemon/seed_source.h \
	daemon/space.c daemon/space.h \
	daemon/split_brain.c daemon/split_brain.h \
	daemon/states.c daemon/states.h \
	daemon/stream.c daemon/stream.h daemon/stream_private.h \
	daemon/stream_connect.c daemon/stream_io.c daemon/stream_listener.c \
	daemon/stream_pace.c daemon/stream_send.c \
	daemon/subnet.c daemon/subnet.h \
	daemon/task_doc.c daemon/task_doc.h \
	daemon/tasks.c daemon/tasks.h daemon/tasks_private.h \
	daemon/testrun_checks.c daemon/testrun_checks.h \
	daemon/testrun_cleanup.c daemon/testrun_cleanup.h \
	daemon/testruns.c daemon/testruns.h daemon/testruns_private.h daemon/testruns_watch.c \
	daemon/time_window.c daemon/time_window.h \
	daemon/tls.c daemon/tls.h \
	daemon/traffic.c daemon/traffic.h \
	daemon/upkeep.c daemon/upkeep.h \
	daemon/verify.c daemon/verify.h \
	daemon/workers.c daemon/workers.h

DAEMON_LIBS = daemon/libdaemon.a $(DRIVERS_LIBS) $(COMMON_LIBS) $(LIBEVENT_LIBS) $(INIH_LIBS)

sbin_PROGRAMS += daemon/virtdrd

daemon_virtdrd_SOURCES = daemon/main.c
daemon_virtdrd_LDADD = $(DAEMON_LIBS)

# libvirt's qemu hook. It is a program of its own that needs neither virtdrd nor
# libvirt, and is installed under the name that hooks/qemu.d shows to people.
noinst_PROGRAMS += daemon/virt-dr-hook
daemon_virt_dr_hook_SOURCES = daemon/hook.c daemon/hook_tool.c daemon/hook_tool.h
daemon_virt_dr_hook_LDADD = daemon/libdaemon.a drivers/libdrivers.a common/libcommon.a $(LIBXML_LIBS) \
	$(JSONC_LIBS) $(SYSTEMD_LIBS)

# Prints the table of states in docs/ARCHITECTURE.md; a test compares the two.
noinst_PROGRAMS += daemon/print-states
daemon_print_states_SOURCES = daemon/print_states.c
daemon_print_states_LDADD = daemon/libdaemon.a $(COMMON_LIBS)

hookdir = $(sysconfdir)/libvirt/hooks/qemu.d

install-qemu-hook: daemon/virt-dr-hook$(EXEEXT)
	$(MKDIR_P) '$(DESTDIR)$(hookdir)'
	$(INSTALL_PROGRAM) daemon/virt-dr-hook$(EXEEXT) '$(DESTDIR)$(hookdir)/virt-dr'

uninstall-qemu-hook:
	rm -f '$(DESTDIR)$(hookdir)/virt-dr'

.PHONY: install-qemu-hook uninstall-qemu-hook
