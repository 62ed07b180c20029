systemdsystemunit_DATA = systemd/virtdrd.service
sysusersdir = $(prefix)/lib/sysusers.d
sysusers_DATA = systemd/virt-dr.conf
tmpfilesdir = $(prefix)/lib/tmpfiles.d
tmpfiles_DATA = systemd/tmpfiles/virt-dr.conf

EXTRA_DIST += systemd/virtdrd.service.in systemd/virt-dr.sysusers systemd/virt-dr.tmpfiles
CLEANFILES += systemd/virtdrd.service systemd/virt-dr.conf systemd/tmpfiles/virt-dr.conf

systemd/virtdrd.service: systemd/virtdrd.service.in Makefile
	$(AM_V_GEN)$(MKDIR_P) systemd && \
	$(SED) 's|[@]sbindir[@]|$(sbindir)|' $(srcdir)/systemd/virtdrd.service.in >$@

# Both folders want a file of the same name.
systemd/virt-dr.conf: systemd/virt-dr.sysusers
	$(AM_V_GEN)$(MKDIR_P) systemd && cp $(srcdir)/systemd/virt-dr.sysusers $@
systemd/tmpfiles/virt-dr.conf: systemd/virt-dr.tmpfiles
	$(AM_V_GEN)$(MKDIR_P) systemd/tmpfiles && cp $(srcdir)/systemd/virt-dr.tmpfiles $@
