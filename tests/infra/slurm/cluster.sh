#!/usr/bin/env bash
# A Slurm of two nodes: slurmctld here, each slurmd in a network namespace of its own with a name of its own.
#   unshare --net --mount --uts --pid --fork --kill-child --mount-proc cluster.sh FOLDER COMMAND...
# runs COMMAND when both nodes are idle; everything ends with it.
set -euo pipefail
folder=$1
shift
[ $$ = 1 ] || { echo "only as the first process of namespaces of its own"; exit 1; }
hostname ctl
mount -t tmpfs none /run
mkdir -p /run/munge /run/netns
printf '127.0.0.1 localhost\n10.77.0.254 ctl\n10.77.0.1 n1\n10.77.0.2 n2\n' > "$folder/hosts"
mount --bind "$folder/hosts" /etc/hosts
ip link set lo up
ip link add br0 type bridge
ip addr add 10.77.0.254/24 dev br0
ip link set br0 up
head -c 128 /dev/urandom > "$folder/munge.key"
chmod 400 "$folder/munge.key"
munged --force --key-file="$folder/munge.key" --pid-file="$folder/munged.pid" --log-file="$folder/munged.log" \
    --seed-file="$folder/munged.seed"
mkdir -p "$folder/state"
cat > "$folder/slurm.conf" << EOF
ClusterName=test
SlurmctldHost=ctl(10.77.0.254)
SlurmUser=root
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool-%n
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd-%n.pid
SlurmctldLogFile=$folder/slurmctld.log
SlurmdLogFile=$folder/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
ReturnToService=2
NodeName=n[1-2] NodeAddr=10.77.0.[1-2] CPUs=$(nproc) RealMemory=2000 State=UNKNOWN
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
EOF
export SLURM_CONF=$folder/slurm.conf
slurmctld -D > /dev/null 2>&1 &
for n in 1 2; do
    ip netns add n$n
    ip link add v$n type veth peer name eth0 netns n$n
    ip link set v$n master br0 up
    ip -n n$n link set lo up
    ip -n n$n addr add 10.77.0.$n/24 dev eth0
    ip -n n$n link set eth0 up
    # Not `ip netns exec`, which hides /sys/fs/cgroup.
    nsenter --net=/run/netns/n$n unshare --uts bash -c "hostname n$n; exec slurmd -D -N n$n" > /dev/null 2>&1 &
done
for _ in $(seq 60); do
    [ "$(sinfo -h -o %T -N 2> /dev/null | grep -c idle)" = 2 ] && break
    sleep 1
done
"$@"
