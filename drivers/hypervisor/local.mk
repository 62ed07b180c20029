# drivers/hypervisor/
drivers_libdrivers_a_SOURCES += \
	drivers/hypervisor/block_graph.c drivers/hypervisor/block_graph.h \
	drivers/hypervisor/domain_bound.c drivers/hypervisor/domain_bound.h \
	drivers/hypervisor/domain_clone.c drivers/hypervisor/domain_clone.h \
	drivers/hypervisor/domain_isolate.c drivers/hypervisor/domain_isolate.h \
	drivers/hypervisor/domain_merge.c drivers/hypervisor/domain_merge.h \
	drivers/hypervisor/domain_secret.c drivers/hypervisor/domain_secret.h \
	drivers/hypervisor/domain_tpm.c drivers/hypervisor/domain_tpm.h \
	drivers/hypervisor/domain_xml.c drivers/hypervisor/domain_xml.h \
	drivers/hypervisor/domain_xml_adapt.c \
	drivers/hypervisor/fake.c drivers/hypervisor/fake.h drivers/hypervisor/fake_control.c \
	drivers/hypervisor/fake_block.c \
	drivers/hypervisor/fake_private.h drivers/hypervisor/fake_secret.c \
	drivers/hypervisor/fake_testbed.c drivers/hypervisor/fake_testbed.h \
	drivers/hypervisor/hypervisor.c \
	drivers/hypervisor/image_head.c drivers/hypervisor/image_head.h \
	drivers/hypervisor/libvirt.c drivers/hypervisor/libvirt.h \
	drivers/hypervisor/libvirt_agent.c \
	drivers/hypervisor/libvirt_block.c \
	drivers/hypervisor/libvirt_domain.c drivers/hypervisor/libvirt_domain.h \
	drivers/hypervisor/libvirt_error.c drivers/hypervisor/libvirt_error.h \
	drivers/hypervisor/libvirt_network.c \
	drivers/hypervisor/libvirt_stats.c \
	drivers/hypervisor/domain_needs.c drivers/hypervisor/domain_needs.h \
	drivers/hypervisor/libvirt_assess.c \
	drivers/hypervisor/libvirt_suspend.c \
	drivers/hypervisor/libvirt_testbed.c \
	drivers/hypervisor/libvirt_reservation.c \
	drivers/hypervisor/libvirt_secret.c drivers/hypervisor/libvirt_tpm.c \
	drivers/hypervisor/qmp.c drivers/hypervisor/qmp.h \
	drivers/hypervisor/swtpm.c drivers/hypervisor/swtpm.h \
	drivers/hypervisor/xml_node.c drivers/hypervisor/xml_node.h
