# shellcheck shell=bash
# Configures and builds in folders of its own under build/. Part of quickstart.

# A tree that was configured in place cannot be built in a second folder: its objects would be taken.
need_clean_source() {
    [[ ! -e $QUICK_TOP/config.status ]] ||
        fail "this tree was configured in place; run 'make distclean' in it first, or use a fresh clone"
}

configure_in() {
    local folder=$1

    shift
    if [[ ! -x $QUICK_TOP/configure ]]; then
        (cd "$QUICK_TOP" && autoreconf -fi)
    fi
    [[ ! -f $folder/Makefile ]] || return 0
    (cd "$folder" && "$QUICK_TOP/configure" -q --prefix=/usr --sysconfdir=/etc \
        --localstatedir=/var "$@")
}

make_in() {
    local folder=$1

    shift
    make -C "$folder" -j"$(nproc)" --no-print-directory "$@"
}

# By the compiler calls that a full build makes; nothing to tell when few are needed.
percent_built() {
    local sources compiled

    sources=$(find "$QUICK_TOP"/{client,common,daemon,drivers} -name '*.c' | wc -l)
    compiled=$(grep -c '^  CC ' "$STEP_LOG") || return 0
    echo $((compiled >= sources ? 99 : compiled * 100 / sources))
}

# build FOLDER CONFIGURE_OPTION...
build() {
    local folder=$1

    shift
    need_clean_source
    mkdir -p "$folder"
    step "Configured in ${folder#"$QUICK_TOP"/}." "$folder/quickstart-configure.log" \
        unknown_percent configure_in "$folder" "$@"
    step "Built virtdrd, virt-dr and the hook." "$folder/quickstart-build.log" percent_built \
        make_in "$folder" all
}
