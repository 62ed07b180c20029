#!/bin/bash
# daemon/config_keys.def, the sample and the manual name the same keys.
set -u
cd "$top_srcdir" || exit 1

# Each prints "section.key", sorted. [networks] has no keys of its own.
in_code() {
    sed -nE 's/^CONFIG_KEY\(([a-z]+), ([a-z0-9_]+),.*/\1.\2/p' daemon/config_keys.def | sort
}
in_sample() { # also what is commented out: "#key = value", without a space behind the '#'
    sed -nE 's/^#?\[([a-z]+)( [a-z0-9]+)?\]$/[\1]/p; s/^#?([a-z0-9_]+) = .*/\1/p' \
        conf/virtdrd.conf |
        awk '/^\[/ { section = substr($0, 2, length($0) - 2); next }
            section != "networks" { print section "." $0 }' | sort
}
in_manual() {
    awk '$1 == ".Ss" { section = $2; gsub(/[][]/, "", section) }
        $1 == ".It" && $2 == "Cm" { for (i = 2; i <= NF; i++)
            if ($i != "Cm" && $i != ",") print section "." $i }' docs/virtdrd.conf.5 | sort
}

n=0
same() { # NAME EXPECTED FOUND
    n=$((n + 1))
    if [ -n "$2" ] && [ "$2" = "$3" ]; then
        echo "ok $n - $1"
    else
        echo "not ok $n - $1"
        diff <(echo "$2") <(echo "$3") | sed -n 's/^< /# missing: /p; s/^> /# too much: /p'
    fi
}

same "the sample has every key, once, and no other" "$(in_code)" "$(in_sample)"
same "the manual has every key, once, and no other" "$(in_code)" "$(in_manual)"
n=$((n + 1))
if grep -q '^#\?\[networks\]$' conf/virtdrd.conf && grep -q '^\.Ss \[networks\]$' docs/virtdrd.conf.5
then echo "ok $n - both have the networks"; else echo "not ok $n - both have the networks"; fi
echo "1..$n"
