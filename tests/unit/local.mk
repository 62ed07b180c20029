# A unit test: tests/unit/test_NOUN.c, one cmocka program and one block each. Those
# of common/ are linked to it alone: it knows neither drivers nor daemon.
UNIT_TESTS =
COMMON_TEST_LIBS = $(COMMON_LIBS) $(CMOCKA_LIBS)
DRIVER_TEST_LIBS = $(DRIVERS_LIBS) $(COMMON_LIBS) $(CMOCKA_LIBS)
CLIENT_TEST_LIBS = $(CLIENT_LIBS) $(LIBEVENT_LIBS) $(CMOCKA_LIBS) -lutil
CLIENT_SERVER = tests/unit/client_server.c tests/unit/client_server.h

UNIT_TESTS += tests/unit/test_api
tests_unit_test_api_SOURCES = tests/unit/test_api.c tests/unit/unit.h
tests_unit_test_api_LDADD = $(UNIT_LIBS)

UNIT_TESTS += tests/unit/test_api_points
tests_unit_test_api_points_SOURCES = tests/unit/test_api_points.c tests/sim/files.c tests/sim/files.h tests/unit/figure.h tests/unit/unit.h
tests_unit_test_api_points_LDADD = $(UNIT_LIBS)

UNIT_TESTS += tests/unit/test_bandwidth
tests_unit_test_bandwidth_SOURCES = tests/unit/test_bandwidth.c tests/unit/unit.h
tests_unit_test_bandwidth_LDADD = $(UNIT_LIBS)

UNIT_TESTS += tests/unit/test_cancel
tests_unit_test_cancel_SOURCES = tests/unit/test_cancel.c tests/unit/unit.h
tests_unit_test_cancel_LDADD = $(COMMON_TEST_LIBS)

UNIT_TESTS += tests/unit/test_capture_checkpoint
tests_unit_test_capture_checkpoint_SOURCES = tests/unit/test_capture_checkpoint.c tests/unit/unit.h
tests_unit_test_capture_checkpoint_LDADD = $(DRIVER_TEST_LIBS)

UNIT_TESTS += tests/unit/test_capture_choice
tests_unit_test_capture_choice_SOURCES = tests/unit/test_capture_choice.c tests/unit/unit.h
tests_unit_test_capture_choice_LDADD = $(UNIT_LIBS)

UNIT_TESTS += tests/unit/test_client_commands
tests_unit_test_client_commands_SOURCES = tests/unit/test_client_commands.c $(CLIENT_SERVER)
tests_unit_test_client_commands_LDADD = $(CLIENT_TEST_LIBS)
EXTRA_tests_unit_test_client_commands_DEPENDENCIES = client/virt-dr$(EXEEXT)

UNIT_TESTS += tests/unit/test_client_docs
tests_unit_test_client_docs_SOURCES = tests/unit/test_client_docs.c
tests_unit_test_client_docs_LDADD = $(CLIENT_TEST_LIBS)

UNIT_TESTS += tests/unit/test_client_parts
tests_unit_test_client_parts_SOURCES = tests/unit/test_client_parts.c
tests_unit_test_client_parts_LDADD = $(CLIENT_TEST_LIBS)

UNIT_TESTS += tests/unit/test_client_wait
tests_unit_test_client_wait_SOURCES = tests/unit/test_client_wait.c $(CLIENT_SERVER)
tests_unit_test_client_wait_LDADD = $(CLIENT_TEST_LIBS)
EXTRA_tests_unit_test_client_wait_DEPENDENCIES = client/virt-dr$(EXEEXT)

UNIT_TESTS += tests/unit/test_comparison
tests_unit_test_comparison_SOURCES = tests/unit/test_comparison.c tests/unit/stream_target.h tests/unit/net.h
tests_unit_test_comparison_LDADD = $(UNIT_LIBS)

UNIT_TESTS += tests/unit/test_config
tests_unit_test_config_SOURCES = tests/unit/test_config.c tests/unit/unit.h
tests_unit_test_config_LDADD = $(UNIT_LIBS)

UNIT_TESTS += tests/unit/test_domain_merge
tests_unit_test_domain_merge_SOURCES = tests/unit/test_domain_merge.c tests/unit/unit.h
tests_unit_test_domain_merge_LDADD = $(DRIVER_TEST_LIBS)

UNIT_TESTS += tests/unit/test_domain_secret
tests_unit_test_domain_secret_SOURCES = tests/unit/test_domain_secret.c tests/unit/unit.h
tests_unit_test_domain_secret_LDADD = $(DRIVER_TEST_LIBS)

UNIT_TESTS += tests/unit/test_domain_isolate
tests_unit_test_domain_isolate_SOURCES = tests/unit/test_domain_isolate.c tests/unit/unit.h
tests_unit_test_domain_isolate_LDADD = $(DRIVER_TEST_LIBS)

UNIT_TESTS += tests/unit/test_script
tests_unit_test_script_SOURCES = tests/unit/test_script.c tests/unit/unit.h
tests_unit_test_script_LDADD = $(DRIVER_TEST_LIBS)

UNIT_TESTS += tests/unit/test_domain_xml
tests_unit_test_domain_xml_SOURCES = tests/unit/test_domain_xml.c tests/unit/unit.h
tests_unit_test_domain_xml_LDADD = $(DRIVER_TEST_LIBS)

UNIT_TESTS += tests/unit/test_error
tests_unit_test_error_SOURCES = tests/unit/test_error.c tests/unit/unit.h
tests_unit_test_error_LDADD = $(COMMON_TEST_LIBS)

UNIT_TESTS += tests/unit/test_event_libvirt
tests_unit_test_event_libvirt_SOURCES = tests/unit/test_event_libvirt.c tests/unit/net.h
tests_unit_test_event_libvirt_LDADD = $(UNIT_LIBS)

UNIT_TESTS += tests/unit/test_exchange
tests_unit_test_exchange_SOURCES = tests/unit/test_exchange.c tests/unit/unit.h
tests_unit_test_exchange_LDADD = $(UNIT_LIBS)

UNIT_TESTS += tests/unit/test_generation
tests_unit_test_generation_SOURCES = tests/unit/test_generation.c tests/unit/unit.h
tests_unit_test_generation_LDADD = $(DRIVER_TEST_LIBS)

UNIT_TESTS += tests/unit/test_guard
tests_unit_test_guard_SOURCES = tests/unit/test_guard.c tests/unit/guard_kit.h tests/unit/unit.h
tests_unit_test_guard_LDADD = $(UNIT_LIBS)

UNIT_TESTS += tests/unit/test_guard_override
tests_unit_test_guard_override_SOURCES = tests/unit/test_guard_override.c tests/unit/guard_kit.h tests/unit/unit.h
tests_unit_test_guard_override_LDADD = $(UNIT_LIBS)

UNIT_TESTS += tests/unit/test_image_head
tests_unit_test_image_head_SOURCES = tests/unit/test_image_head.c tests/unit/unit.h
tests_unit_test_image_head_LDADD = $(DRIVER_TEST_LIBS)

UNIT_TESTS += tests/unit/test_imprint
tests_unit_test_imprint_SOURCES = tests/unit/test_imprint.c tests/unit/unit.h
tests_unit_test_imprint_LDADD = $(UNIT_LIBS)

UNIT_TESTS += tests/unit/test_http
tests_unit_test_http_SOURCES = tests/unit/test_http.c tests/unit/http_server.c tests/unit/http_server.h tests/unit/unit.h
tests_unit_test_http_LDADD = $(COMMON_TEST_LIBS)

UNIT_TESTS += tests/unit/test_hypervisor_fake
tests_unit_test_hypervisor_fake_SOURCES = tests/unit/test_hypervisor_fake.c tests/unit/unit.h
tests_unit_test_hypervisor_fake_LDADD = $(DRIVER_TEST_LIBS)

UNIT_TESTS += tests/unit/test_hypervisor_libvirt
tests_unit_test_hypervisor_libvirt_SOURCES = tests/unit/test_hypervisor_libvirt.c tests/unit/unit.h
tests_unit_test_hypervisor_libvirt_LDADD = $(DRIVER_TEST_LIBS)

UNIT_TESTS += tests/unit/test_journal
tests_unit_test_journal_SOURCES = tests/unit/test_journal.c tests/unit/replica_kit.h tests/unit/unit.h
tests_unit_test_journal_LDADD = $(DRIVER_TEST_LIBS)

UNIT_TESTS += tests/unit/test_json
tests_unit_test_json_SOURCES = tests/unit/test_json.c tests/unit/unit.h
tests_unit_test_json_LDADD = $(COMMON_TEST_LIBS)

UNIT_TESTS += tests/unit/test_latency
tests_unit_test_latency_SOURCES = tests/unit/test_latency.c tests/unit/unit.h
tests_unit_test_latency_LDADD = $(UNIT_LIBS)

UNIT_TESTS += tests/unit/test_layout
tests_unit_test_layout_SOURCES = tests/unit/test_layout.c tests/unit/replica_kit.h tests/unit/unit.h
tests_unit_test_layout_LDADD = $(DRIVER_TEST_LIBS)

UNIT_TESTS += tests/unit/test_log
tests_unit_test_log_SOURCES = tests/unit/test_log.c tests/unit/unit.h
tests_unit_test_log_LDADD = $(COMMON_TEST_LIBS)

UNIT_TESTS += tests/unit/test_mark_pace
tests_unit_test_mark_pace_SOURCES = tests/unit/test_mark_pace.c tests/unit/unit.h
tests_unit_test_mark_pace_LDADD = $(UNIT_LIBS)

UNIT_TESTS += tests/unit/test_mem
tests_unit_test_mem_SOURCES = tests/unit/test_mem.c tests/unit/unit.h
tests_unit_test_mem_LDADD = $(COMMON_TEST_LIBS)

UNIT_TESTS += tests/unit/test_nbd_reader
tests_unit_test_nbd_reader_SOURCES = tests/unit/test_nbd_reader.c tests/unit/replica_kit.h tests/unit/unit.h
tests_unit_test_nbd_reader_LDADD = $(DRIVER_TEST_LIBS)

UNIT_TESTS += tests/unit/test_nbd_server
tests_unit_test_nbd_server_SOURCES = tests/unit/test_nbd_server.c tests/unit/replica_kit.h tests/unit/unit.h
tests_unit_test_nbd_server_LDADD = $(UNIT_LIBS)

UNIT_TESTS += tests/unit/test_peers
tests_unit_test_peers_SOURCES = tests/unit/test_peers.c tests/unit/unit.h
tests_unit_test_peers_LDADD = $(UNIT_LIBS)

UNIT_TESTS += tests/unit/test_point_select
tests_unit_test_point_select_SOURCES = tests/unit/test_point_select.c tests/unit/unit.h
tests_unit_test_point_select_LDADD = $(UNIT_LIBS)

UNIT_TESTS += tests/unit/test_points
tests_unit_test_points_SOURCES = tests/unit/test_points.c tests/unit/figure.h tests/unit/unit.h
tests_unit_test_points_LDADD = $(UNIT_LIBS)

UNIT_TESTS += tests/unit/test_qsd
tests_unit_test_qsd_SOURCES = tests/unit/test_qsd.c tests/unit/replica_kit.h tests/unit/unit.h
tests_unit_test_qsd_LDADD = $(DRIVER_TEST_LIBS)

UNIT_TESTS += tests/unit/test_replication
tests_unit_test_replication_SOURCES = tests/unit/test_replication.c tests/sim/files.c tests/sim/files.h tests/unit/unit.h
tests_unit_test_replication_LDADD = $(UNIT_LIBS)

UNIT_TESTS += tests/unit/test_rest
tests_unit_test_rest_SOURCES = tests/unit/test_rest.c tests/unit/net.h
tests_unit_test_rest_LDADD = $(UNIT_LIBS)

UNIT_TESTS += tests/unit/test_retention
tests_unit_test_retention_SOURCES = tests/unit/test_retention.c tests/unit/unit.h
tests_unit_test_retention_LDADD = $(UNIT_LIBS)

UNIT_TESTS += tests/unit/test_scheduler
tests_unit_test_scheduler_SOURCES = tests/unit/test_scheduler.c tests/unit/unit.h
tests_unit_test_scheduler_LDADD = $(UNIT_LIBS)

UNIT_TESTS += tests/unit/test_scratch_image
tests_unit_test_scratch_image_SOURCES = tests/unit/test_scratch_image.c tests/unit/unit.h
tests_unit_test_scratch_image_LDADD = $(DRIVER_TEST_LIBS)

UNIT_TESTS += tests/unit/test_sse
tests_unit_test_sse_SOURCES = tests/unit/test_sse.c tests/unit/unit.h
tests_unit_test_sse_LDADD = $(COMMON_TEST_LIBS)

UNIT_TESTS += tests/unit/test_seed
tests_unit_test_seed_SOURCES = tests/unit/test_seed.c tests/unit/store_kit.h tests/unit/replica_kit.h tests/unit/unit.h
tests_unit_test_seed_LDADD = $(DRIVER_TEST_LIBS)

UNIT_TESTS += tests/unit/test_state_sqlite
tests_unit_test_state_sqlite_SOURCES = tests/unit/test_state_sqlite.c tests/unit/unit.h
tests_unit_test_state_sqlite_LDADD = $(DRIVER_TEST_LIBS)

UNIT_TESTS += tests/unit/test_store_doubt
tests_unit_test_store_doubt_SOURCES = tests/unit/test_store_doubt.c tests/unit/points_kit.h tests/unit/store_kit.h tests/unit/replica_kit.h tests/unit/unit.h
tests_unit_test_store_doubt_LDADD = $(DRIVER_TEST_LIBS)
UNIT_TESTS += tests/unit/test_store_hashes
tests_unit_test_store_hashes_SOURCES = tests/unit/test_store_hashes.c tests/unit/hashes_kit.h tests/unit/store_kit.h tests/unit/replica_kit.h tests/unit/unit.h
tests_unit_test_store_hashes_LDADD = $(DRIVER_TEST_LIBS)

UNIT_TESTS += tests/unit/test_store_fold
tests_unit_test_store_fold_SOURCES = tests/unit/test_store_fold.c tests/unit/hashes_kit.h tests/unit/points_kit.h tests/unit/store_kit.h tests/unit/replica_kit.h tests/unit/unit.h
tests_unit_test_store_fold_LDADD = $(DRIVER_TEST_LIBS)

UNIT_TESTS += tests/unit/test_store_original
tests_unit_test_store_original_SOURCES = tests/unit/test_store_original.c tests/unit/hashes_kit.h tests/unit/points_kit.h tests/unit/store_kit.h tests/unit/replica_kit.h tests/unit/unit.h
tests_unit_test_store_original_LDADD = $(DRIVER_TEST_LIBS)

UNIT_TESTS += tests/unit/test_store_points
tests_unit_test_store_points_SOURCES = tests/unit/test_store_points.c tests/unit/points_kit.h tests/unit/store_kit.h tests/unit/replica_kit.h tests/unit/unit.h
tests_unit_test_store_points_LDADD = $(DRIVER_TEST_LIBS)

UNIT_TESTS += tests/unit/test_store_qcow2
tests_unit_test_store_qcow2_SOURCES = tests/unit/test_store_qcow2.c tests/unit/store_kit.h tests/unit/replica_kit.h tests/unit/unit.h
tests_unit_test_store_qcow2_LDADD = $(DRIVER_TEST_LIBS)

UNIT_TESTS += tests/unit/test_store_retain
tests_unit_test_store_retain_SOURCES = tests/unit/test_store_retain.c tests/unit/points_kit.h tests/unit/store_kit.h tests/unit/replica_kit.h tests/unit/unit.h
tests_unit_test_store_retain_LDADD = $(DRIVER_TEST_LIBS)

UNIT_TESTS += tests/unit/test_states
tests_unit_test_states_SOURCES = tests/unit/test_states.c tests/sim/files.c tests/sim/files.h tests/unit/unit.h
tests_unit_test_states_LDADD = $(UNIT_LIBS)

UNIT_TESTS += tests/unit/test_stream
tests_unit_test_stream_SOURCES = tests/unit/test_stream.c tests/unit/stream_target.h tests/unit/net.h
tests_unit_test_stream_LDADD = $(UNIT_LIBS)

UNIT_TESTS += tests/unit/test_stream_hostile
tests_unit_test_stream_hostile_SOURCES = tests/unit/test_stream_hostile.c tests/unit/stream_target.h tests/unit/net.h
tests_unit_test_stream_hostile_LDADD = $(UNIT_LIBS)

UNIT_TESTS += tests/unit/test_store_scrub
tests_unit_test_store_scrub_SOURCES = tests/unit/test_store_scrub.c tests/unit/points_kit.h tests/unit/store_kit.h tests/unit/replica_kit.h tests/unit/unit.h
tests_unit_test_store_scrub_LDADD = $(DRIVER_TEST_LIBS)

UNIT_TESTS += tests/unit/test_subnet
tests_unit_test_subnet_SOURCES = tests/unit/test_subnet.c tests/unit/unit.h
tests_unit_test_subnet_LDADD = $(UNIT_LIBS)

UNIT_TESTS += tests/unit/test_sums
tests_unit_test_sums_SOURCES = tests/unit/test_sums.c tests/unit/replica_kit.h tests/unit/unit.h
tests_unit_test_sums_LDADD = $(DRIVER_TEST_LIBS)

UNIT_TESTS += tests/unit/test_tasks
tests_unit_test_tasks_SOURCES = tests/unit/test_tasks.c tests/sim/files.c tests/sim/files.h tests/unit/unit.h
tests_unit_test_tasks_LDADD = $(UNIT_LIBS)

UNIT_TESTS += tests/unit/test_swtpm
tests_unit_test_swtpm_SOURCES = tests/unit/test_swtpm.c tests/unit/unit.h \
	tests/sim/files.c tests/sim/files.h
tests_unit_test_swtpm_LDADD = $(DRIVER_TEST_LIBS)

UNIT_TESTS += tests/unit/test_text
tests_unit_test_text_SOURCES = tests/unit/test_text.c tests/unit/unit.h
tests_unit_test_text_LDADD = $(COMMON_TEST_LIBS)

UNIT_TESTS += tests/unit/test_time_window
tests_unit_test_time_window_SOURCES = tests/unit/test_time_window.c tests/unit/unit.h
tests_unit_test_time_window_LDADD = $(UNIT_LIBS)

UNIT_TESTS += tests/unit/test_tls
tests_unit_test_tls_SOURCES = tests/unit/test_tls.c
tests_unit_test_tls_LDADD = $(UNIT_LIBS)

UNIT_TESTS += tests/unit/test_units
tests_unit_test_units_SOURCES = tests/unit/test_units.c tests/unit/unit.h
tests_unit_test_units_LDADD = $(COMMON_TEST_LIBS)

UNIT_TESTS += tests/unit/test_wire
tests_unit_test_wire_SOURCES = tests/unit/test_wire.c tests/unit/unit.h
tests_unit_test_wire_LDADD = $(COMMON_TEST_LIBS)

UNIT_TESTS += tests/unit/test_workers
tests_unit_test_workers_SOURCES = tests/unit/test_workers.c
tests_unit_test_workers_LDADD = $(UNIT_LIBS)

UNIT_TESTS += tests/unit/test_writer
tests_unit_test_writer_SOURCES = tests/unit/test_writer.c tests/unit/replica_kit.h tests/unit/unit.h
tests_unit_test_writer_LDADD = $(DRIVER_TEST_LIBS)

check_PROGRAMS += $(UNIT_TESTS)
TESTS += $(UNIT_TESTS)
