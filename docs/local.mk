# docs/
dist_man_MANS += docs/virt-dr.1
dist_doc_DATA += docs/openapi.yaml
