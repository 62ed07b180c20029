dist_man_MANS += docs/virt-dr.1 docs/virtdrd.8 docs/virtdrd.conf.5
dist_doc_DATA += docs/openapi.yaml docs/ARCHITECTURE.md docs/HACKING.md docs/OPERATIONS.md
