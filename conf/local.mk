# bash-completion looks for COMMAND.bash too.
bashcompletiondir = $(datadir)/bash-completion/completions
dist_bashcompletion_DATA = conf/completion/virt-dr.bash

examplesdir = $(docdir)/examples
dist_examples_DATA = conf/virtdrd.conf
apparmordir = $(docdir)/examples/apparmor
dist_apparmor_DATA = conf/apparmor/libvirt-qemu

# The sample becomes the configuration unless there is one.
install-configuration:
	$(MKDIR_P) '$(DESTDIR)$(sysconfdir)/virt-dr'
	test -e '$(DESTDIR)$(sysconfdir)/virt-dr/virtdrd.conf' || \
		$(INSTALL_DATA) $(srcdir)/conf/virtdrd.conf \
			'$(DESTDIR)$(sysconfdir)/virt-dr/virtdrd.conf'

# One that was changed stays.
uninstall-configuration:
	if cmp -s $(srcdir)/conf/virtdrd.conf '$(DESTDIR)$(sysconfdir)/virt-dr/virtdrd.conf'; \
		then rm -f '$(DESTDIR)$(sysconfdir)/virt-dr/virtdrd.conf'; fi

.PHONY: install-configuration uninstall-configuration
