# shellcheck shell=bash
# What a guest that writes notices of it, and whether the RPO is held. Part of bench/run.

GUEST_WINDOW_S=20 # of latencies each time; the guest prints a line every 5 s
GUEST_RPO_S=60

# latencies SECONDS: the guest's lines of that time, the first left out: it began before.
latencies() {
    local from

    from=$("$LAB" console a busy | grep -c '^lat ' || true)
    sleep "$1"
    "$LAB" console a busy | grep '^lat ' | tail -n +"$((from + 2))"
}

# Asks ten times a second on the target, prints the oldest age in ms.
oldest_age() {
    # shellcheck disable=SC2016 # expanded there
    on b bash -c 'end=$((SECONDS + $1)); oldest=0; n=0
        while ((SECONDS < end)); do
            age=$(virt-dr info busy -o json | jq .rpoAge)
            ((age > oldest)) && oldest=$age
            n=$((n + 1))
            sleep 0.1
        done
        echo "$oldest $n"' bash "$1"
}

bench_rpo() {
    local oldest n seen

    read -r oldest n < <(oldest_age "$GUEST_RPO_S")
    seen=$(on a virt-dr info busy -o json | jq .statistics.rpoSeenMax)
    note "oldest age seen at the target $oldest ms in $n looks, at the source's acknowledgements $seen ms"
    row rpo-held "$(awk -v a="$oldest" -v b="$seen" 'BEGIN { printf "%.2f", (a > b ? a : b) / 1000 }')" -
}

bench_guest() {
    local i with='' without=''

    "$LAB" guest a busy --disks 2 --rate 200
    "$LAB" wait-guest a busy --blocks 1000 --timeout 120
    for ((i = 0; i < ROUNDS; i++)); do
        ! wanted guest-write-p50 && ! wanted guest-write-p99 ||
            without+=$(latencies "$GUEST_WINDOW_S")$'\n'
        virt_dr a protect busy --to b --rpo 5s --wait >/dev/null
        if ((i == 0)) && wanted rpo-held; then
            bench_rpo
        fi
        ! wanted guest-write-p50 && ! wanted guest-write-p99 ||
            with+=$(latencies "$GUEST_WINDOW_S")$'\n'
        virt_dr a unprotect busy --wait >/dev/null
    done
    for i in 2 3; do
        row "guest-write-p$([[ $i == 2 ]] && echo 50 || echo 99)" \
            "$(awk -v i=$i 'NF >= 5 { print $i }' <<<"$with" | median)" \
            "$(awk -v i=$i 'NF >= 5 { print $i }' <<<"$without" | median)"
    done
    drop_guest a busy
}
