#!/bin/bash
# A peer that breaks the rules, strangers, tokens, clocks: what is there stays, and goes on (TAP).

export LAB_ID=${LAB_ID:-55}
# shellcheck source=tests/system/lib.sh disable=SC2317,SC2119 # functions that check() and its kind call
. "$(dirname "$0")/lib.sh"

need curl openssl socat base64
HOSTILE=$BUILD/tests/system/hostile_peer
[[ -x $HOSTILE ]] || skip_all "$HOSTILE is not built (make check builds it)"
BLOCK_MAGIC=VTDRBLK1
SLOW_ATTACKS="silent drip"
SLOW_PIDS=()

# --- hostile_peer ---------------------------------------------------------------

# hostile CERTIFICATE_FOLDER ATTACK: with what is known of the replication; prints the verdict.
hostile() {
    on a timeout 60 "$HOSTILE" --address "b:7781" --certificate "$1/certificate.pem" \
        --key "$1/key.pem" --replication "$REPLICATION" --epoch "$EPOCH" --point "$POINT" \
        --sequence "$SEQUENCE" --capacity "$CAPACITY" --patience 45 "$2" 2>"$WORK/attacks.$2"
}

learn_replication() {
    local json

    json=$(js b info g1)
    REPLICATION=$(jq -r .id <<<"$json")
    EPOCH=$(jq -r .epoch <<<"$json")
    POINT=$(jq -r .latestInstance.key <<<"$json")
    SEQUENCE=$(jq -r .latestInstance.sequenceNumber <<<"$json")
}

# What must not change, whatever a peer sends.
what_b_has() {
    echo "pid $(daemon_pid b)"
    js b info g1 | jq -c '[.id, .epoch, .latestInstance.key, .latestInstance.timestamp]'
    js b points g1 | jq -c '[.items[] | [.name, .sequenceNumber, .timestamp]]'
}

# judge ATTACK WANTED LINE: the verdict, and that nothing was changed.
judge() {
    local now

    now=$(what_b_has)
    if [[ ${3%% *} != "$2" ]]; then
        not_ok "$1: refused with $2" "$3" "$(cat "$WORK/attacks.$1")"
        [[ $now == "$BEFORE" ]] && return
    fi
    if [[ $now != "$BEFORE" ]]; then
        not_ok "$1: nothing changes on the target" "before: $BEFORE"$'\n'"after: $now"
        BEFORE=$now
        learn_replication # or no attack after this one would get as far as it should
        return
    fi
    ok "$1: refused with $2, and nothing changes"
}

attack_all() {
    local name wanted

    while read -r name wanted; do
        [[ " $SLOW_ATTACKS stall " == *" $name "* ]] && continue
        judge "$name" "$wanted" "$(hostile /var/lib/virt-dr/tls "$name")"
    done < <("$HOSTILE")
}

slow_attacks_begin() {
    local name

    for name in $SLOW_ATTACKS; do
        hostile /var/lib/virt-dr/tls "$name" >"$WORK/slow.$name" &
        SLOW_PIDS+=("$!")
    done
}

slow_attacks_end() {
    local name line ms

    wait "${SLOW_PIDS[@]}"
    for name in $SLOW_ATTACKS; do
        read -r line <"$WORK/slow.$name"
        judge "$name" closed "$line"
        read -r _ ms _ <<<"$line"
        check "  ... within the time for a greeting ($ms ms)" test "$ms" -lt 20000
    done
}

# Half a frame, and nothing more: it makes way for the next that is welcome.
test_stall() {
    local pid

    hostile /var/lib/virt-dr/tls stall >"$WORK/slow.stall" &
    pid=$!
    comes_true "an exchange stalls in the middle of a frame" 20 grep -q attacks: "$WORK/attacks.stall"
    judge repeated ProtocolError "$(hostile /var/lib/virt-dr/tls repeated)"
    wait "$pid"
    judge stall Cancelled "$(cat "$WORK/slow.stall")"
}

test_attacks() {
    CAPACITY=$(info a g1 '.disks[0].capacity')
    lab stop a virtdrd
    learn_replication
    BEFORE=$(what_b_has)
    slow_attacks_begin
    test_stall
    attack_all
    slow_attacks_end
    lab start a virtdrd
    advances "after all that the real source goes on" g1 "$PATIENCE" "$SEQUENCE"
}

# --- strangers --------------------------------------------------------------------

make_stranger() {
    mkdir -p "$WORK/stranger"
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 10 -subj /CN=a \
        -keyout "$WORK/stranger/key.pem" -out "$WORK/stranger/certificate.pem" 2>"$WORK/openssl"
}

# rest METHOD PATH [OPTION...]: the HTTP status and the error's code.
rest() {
    local status

    status=$(on a curl -sk -m 20 -o "$WORK/body" -w '%{http_code}' -X "$1" "${@:3}" \
        -H 'Content-Type: application/json' -d '{}' "https://b:7780$2")
    echo "$status $(jq -r '.code? // .error?.code? // empty' "$WORK/body" 2>/dev/null)"
    : >"$WORK/body"
}

rest_routes() {
    sed -n 's/^    { "\([A-Z]*\)", *"\([^"]*\)", .*/\1 \2/p' "$TOP/daemon/api.c"
}

test_stranger_rest() {
    local method path count=0 wrong='' got
    local cert=(--cert "$WORK/stranger/certificate.pem" --key "$WORK/stranger/key.pem")

    while read -r method path; do
        [[ $path == */peers/accept || $path == /api/v1/host ]] && continue
        path=$(sed 's/{[a-z]*}/g1/g' <<<"$path")
        count=$((count + 1))
        got=$(rest "$method" "$path" "${cert[@]}")
        [[ $got == "401 NotAuthenticated" ]] || wrong+="$method $path: $got; "
    done < <(rest_routes)
    is "a stranger gets 401 NotAuthenticated on each of the $count routes" "$wrong" ""
    check "  ... which are the routes of the API" test "$count" -ge 20
    is "a stranger who would be accepted without a token" \
        "$(rest POST /api/v1/peers/accept "${cert[@]}" | cut -c 1)" 4
    is "a peer is no operator" "$(rest GET /api/v1/replications \
        --cert "$(host_file a /var/lib/virt-dr/tls/certificate.pem)" \
        --key "$(host_file a /var/lib/virt-dr/tls/key.pem)")" "403 Forbidden"
}

test_stranger_stream() {
    CAPACITY=$(info a g1 '.disks[0].capacity')
    learn_replication
    is "a stranger gets nothing on the stream" \
        "$(hostile "$WORK/stranger" random-begin | cut -d ' ' -f 1)" NotAuthenticated
}

# no_tls PORT OPTION...: the handshake must fail, and must not for want of a listener.
no_handshake() {
    local port=$1

    shift
    ! on a timeout 20 openssl s_client -connect "b:$port" "$@" </dev/null >"$WORK/tls" 2>&1 ||
        ! grep -q 'Cipher is [A-Z]' "$WORK/tls"
}

# TLS 1.3 lets a client believe that it is done before its (missing) certificate is judged.
no_answer_without_certificate() {
    local port=$1 alpn=$2

    printf 'GET /api/v1/host HTTP/1.1\r\nHost: b\r\n\r\n' |
        on a timeout 20 openssl s_client -quiet -alpn "$alpn" -connect "b:$port" \
            >"$WORK/tls.out" 2>"$WORK/tls"
    [[ ! -s $WORK/tls.out ]] && grep -qi 'certificate required' "$WORK/tls"
}

no_plain_text() {
    printf 'GET /api/v1/host HTTP/1.1\r\nHost: b\r\n\r\n' |
        on a timeout 20 socat -t 5 - "TCP:b:$1" >"$WORK/plain" 2>"$WORK/plain.err"
    ! grep -aqE 'HTTP/1|VDR1|\{' "$WORK/plain"
}

test_strangers() {
    local port alpn cert

    cert=(-cert "$(host_file a /var/lib/virt-dr/tls/certificate.pem)"
        -key "$(host_file a /var/lib/virt-dr/tls/key.pem)")
    make_stranger
    test_stranger_rest
    test_stranger_stream
    while read -r port alpn; do
        check "port $port: with TLS 1.3 and a's certificate there is a handshake" \
            not no_handshake "$port" -alpn "$alpn" -tls1_3 "${cert[@]}"
        check "port $port: TLS 1.2 is refused" \
            no_handshake "$port" -alpn "$alpn" -tls1_2 "${cert[@]}"
        check "port $port: without a certificate nothing is answered" \
            no_answer_without_certificate "$port" "$alpn"
        check "port $port: plain text is not answered" no_plain_text "$port"
    done < <(printf '%s\n' '7780 http/1.1' '7781 virt-dr-stream/1')
}

# --- tokens --------------------------------------------------------------------------

token() {
    js b peer-invite "$@" | jq -r .token
}

# changed TOKEN FILTER: the token with its JSON changed.
changed() {
    local text=${1#vdr1-}

    text=$(tr -- -_ +/ <<<"$text")
    while ((${#text} % 4 != 0)); do
        text+='='
    done
    printf 'vdr1-%s' "$(base64 -d <<<"$text" | jq -cj "$2" | base64 -w 0 | tr -- +/ -_ | tr -d =)"
}

is_over() {
    (($(date +%s%3N) > $1))
}

test_tokens() {
    local one two three

    one=$(token)
    exits 0 "paired hosts may pair again" dr a peer-join "$one"
    fails_with NOT_AUTHENTICATED "a token is good for one use" a peer-join "$one"
    js b peer-invite --expires 1s >"$WORK/invite"
    comes_true "a token of one second ends" 10 is_over "$(jq .expires "$WORK/invite")"
    fails_with NOT_AUTHENTICATED "a token that has expired" a peer-join "$(jq -r .token "$WORK/invite")"
    two=$(token)
    fails_with USAGE "a token that was cut" a peer-join "${two%??????????}"
    fails_with USAGE "what is no token" a peer-join "hello"
    fails_with NOT_AUTHENTICATED "a token with another secret" a peer-join \
        "$(changed "$two" '.s = "00000000000000000000000000000000"')"
    fails_with TLS "a token that vouches for another certificate" a peer-join \
        "$(changed "$two" '.f = .f[0:60] + "0000"')"
    three=$(token --expires 1h)
    fails_with NOT_AUTHENTICATED "a token whose end was moved" a peer-join \
        "$(changed "$(jq -r .token "$WORK/invite")" '.e += 3600000')"
    exits 0 "none of these spoils a good one" dr a peer-join "$three"
}

# --- clocks --------------------------------------------------------------------------------

# A folder like the build's, whose virtdrd lives 5 s in the future.
make_skewed_build() {
    local lib

    lib=$(find /usr/lib -name libfaketimeMT.so.1 | head -n 1)
    [[ -n $lib ]] || return 1
    mkdir -p "$WORK/skewed/daemon"
    printf '#!/bin/sh\nexec env LD_PRELOAD=%s FAKETIME=+5s DONT_FAKE_MONOTONIC=1 %s "$@"\n' \
        "$lib" "$LAB_BUILD/daemon/virtdrd" >"$WORK/skewed/daemon/virtdrd"
    chmod +x "$WORK/skewed/daemon/virtdrd"
}

last_error_is() {
    [[ $(info a g1 '.lastError.code') == "$1" ]]
}

test_clock() {
    local before

    make_skewed_build || { skip "a clock that is 5 s off" "faketime is not installed"; return; }
    lab stop b virtdrd
    LAB_BUILD=$WORK/skewed lab start b virtdrd ||
        { not_ok "virtdrd starts under faketime" "see its log"; return; }
    before=$(newest b g1)
    comes_true "a clock that is 5 s off stops replication, and info says so" "$PATIENCE" \
        last_error_is ClockSkew
    run_status js a info g1
    check "  ... in words: how far off, and what to do" \
        grep -qE 'clock.*[45]\.[0-9]+ s .*synchroni[sz]e' "$WORK/out"
    fails_with CLOCK "hosts whose clocks differ cannot be paired" a peer-join "$(token)"
    is "nothing came through meanwhile" "$(newest b g1)" "$before"
    lab stop b virtdrd
    lab start b virtdrd
    advances "it goes on by itself once the clock is right" g1 "$PATIENCE" "$before"
    comes_true "  ... and the error is gone" "$PATIENCE" last_error_is null
}

# --- the wire --------------------------------------------------------------------------------

listen_to_wire() {
    have tcpdump || return 0
    on a timeout 170 tcpdump -i any -s 0 -U -w "$WORK/wire" 'tcp port 7780 or tcp port 7781' \
        >"$WORK/tcpdump" 2>&1 &
    wait_for 20 grep -q listening "$WORK/tcpdump" || diag "tcpdump does not start: $(cat "$WORK/tcpdump")"
}

test_wire() {
    local word

    have tcpdump || { skip "nothing on the wire is plain text" "tcpdump is not installed"; return; }
    check "the wire was listened to" test "$(stat -c %s "$WORK/wire")" -gt 100000
    check "the guest's blocks can be told by their magic" \
        grep -aqF "$BLOCK_MAGIC" "$(host_file a "$(disks_of a g1 | head -n 1)")"
    for word in "$BLOCK_MAGIC" VDR1 '<domain' '"replication"' '"protocol"' 'HTTP/1.1' g1-vda; do
        check "'$word' is not on the wire" not grep -aqF "$word" "$WORK/wire"
    done
}

# --- all of it -------------------------------------------------------------------------------

test_recovery() {
    local before

    virsh_on a suspend g1
    lab acked a g1 >"$WORK/acked"
    before=$(newest b g1)
    exits 0 "a last point is made" dr a sync g1 --wait
    advances "  ... and is durable" g1 "$PATIENCE" "$((before - 1))"
    lab crash a
    exits 0 "the VM comes up on the target" dr b failover g1 --wait
    lab boot a
    check "its disks are the source's, to the byte" same_bytes g1
    holds_all "it holds each block that the guest was promised" b g1 "$WORK/acked"
}

system_up
listen_to_wire
guest a g1 --rate 50
check "a VM is protected" protect g1 --rpo 2s
advances "  ... and its changes travel" g1 "$PATIENCE"
test_wire
test_strangers
test_attacks
test_tokens
test_clock
test_recovery
tests_done
