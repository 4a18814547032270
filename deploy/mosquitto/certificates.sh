#!/bin/sh
# Makes an authority of your own, and certificates that it signs, with openssl 3:
#
#   deploy/mosquitto/certificates.sh FOLDER authority            authority.pem and authority.key
#   deploy/mosquitto/certificates.sh FOLDER broker HOST...       broker.pem and broker.key, for these names and addresses
#   deploy/mosquitto/certificates.sh FOLDER client NAME...       NAME.pem and NAME.key, for devices (device.id) and programs
#
# DAYS is how long they are valid: 3650 for an authority, 825 for the others. An authority is never overwritten.
set -eu

usage() { sed -n '2,8s/^# \{0,1\}//p' "$0" >&2; exit 64; }
[ $# -ge 2 ] || usage
folder=$1 what=$2
shift 2
umask 077
mkdir -p "$folder"
cd "$folder"

# make NAME CN DAYS EXTENSIONS [OPTION...]: a key, and its certificate.
make() {
    name=$1 cn=$2 days=$3 extensions=$4
    shift 4
    printf '[req]\ndistinguished_name = name\n[name]\n[extensions]\n%s\n' "$extensions" >openssl.cnf
    openssl req -x509 -config openssl.cnf -extensions extensions -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 \
        -nodes -days "$days" -subj "/CN=$cn" -keyout "$name.key" -out "$name.pem" "$@" 2>log || { cat log >&2; exit 70; }
    rm openssl.cnf log
}

signed() {
    [ -e authority.key ] || { echo "there is no authority in $folder yet" >&2; exit 66; }
    make "$@" -CA authority.pem -CAkey authority.key
}

case $what in
    authority)
        [ $# -eq 0 ] || usage
        [ ! -e authority.key ] || { echo "$folder/authority.key is there already" >&2; exit 73; }
        make authority "Ternwatch authority" "${DAYS:-3650}" "basicConstraints = critical, CA:TRUE
keyUsage = critical, keyCertSign, cRLSign"
        ;;
    broker)
        [ $# -gt 0 ] || usage
        names=
        for host; do
            case $host in
                *:*) names=$names,IP:$host ;;
                *[!0-9.]*) names=$names,DNS:$host ;;
                *) names=$names,IP:$host ;;
            esac
        done
        signed broker "$1" "${DAYS:-825}" "basicConstraints = critical, CA:FALSE
extendedKeyUsage = serverAuth
subjectAltName = ${names#,}"
        ;;
    client)
        [ $# -gt 0 ] || usage
        for name; do
            case $name in
                authority | broker | *[!A-Za-z0-9._-]* | -* | .*) echo "no name for a client: $name" >&2; exit 64 ;;
            esac
            signed "$name" "$name" "${DAYS:-825}" "basicConstraints = critical, CA:FALSE
extendedKeyUsage = clientAuth"
        done
        ;;
    *) usage ;;
esac
