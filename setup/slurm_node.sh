#!/usr/bin/env bash
# A real SLURM of one node on this machine, without systemd: for `make test-cluster` and for trying things out.
#   eval "$(setup/slurm_node.sh start [FOLDER])"    starts it and sets SLURM_CONF for sbatch, squeue, scancel
#   setup/slurm_node.sh stop [FOLDER]               ends all its daemons
#   setup/slurm_node.sh check                       says why it cannot be started here, if so (exit code 7)
# Needs root and apt-get (Debian, Ubuntu: slurm-wlm and munge are installed the first time). FOLDER keeps state and logs.
set -euo pipefail

say() { printf '[slurm] %s\n' "$*" >&2; }
fail() { printf 'error: %s\n  cure: %s\n' "$1" "$2" >&2; exit 7; }

command=${1:-}
folder=${2:-/tmp/samg-slurm}
packages=(slurm-wlm munge)

has_packages() { command -v slurmctld >/dev/null && command -v slurmd >/dev/null && command -v munged >/dev/null; }

check() {
  [ "$(id -u)" -eq 0 ] || fail "A SLURM node needs root." "Run this as root, or use +launcher=local."
  has_packages || command -v apt-get >/dev/null || fail "There is neither SLURM nor apt-get here." "Install slurmctld, slurmd and munge."
  if pgrep -x slurmctld >/dev/null && ! alive slurmctld; then
    fail "Another slurmctld runs on this machine." "Use that one, or stop it first."
  fi
}

install_packages() {
  has_packages && return
  say "Installing ${packages[*]}"
  apt-get update -qq >&2
  DEBIAN_FRONTEND=noninteractive apt-get install --no-install-recommends -y -qq "${packages[@]}" >&2
}

alive() { [ -s "$folder/$1.pid" ] && kill -0 "$(cat "$folder/$1.pid")" 2>/dev/null; }

write_conf() {
  local host cpus memory
  host=$(hostname -s)
  cpus=$(getconf _NPROCESSORS_ONLN) # nproc obeys OMP_NUM_THREADS
  memory=$(awk '/MemTotal/ {print int($2 / 1024 * 0.9)}' /proc/meminfo)
  cat >"$folder/slurm.conf" <<EOF
ClusterName=samg
SlurmctldHost=$host(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
CredType=cred/munge
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SwitchType=switch/none
MpiDefault=none
ReturnToService=2
KillWait=60
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool
SlurmctldLogFile=$folder/slurmctld.log
SlurmdLogFile=$folder/slurmd.log
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd.pid
NodeName=$host NodeAddr=127.0.0.1 CPUs=$cpus Sockets=1 CoresPerSocket=$cpus ThreadsPerCore=1 RealMemory=$memory
PartitionName=main Nodes=$host Default=YES State=UP
EOF
}

start_munge() {
  pgrep -x munged >/dev/null && return
  [ -s /etc/munge/munge.key ] || { mkdir -p /etc/munge; dd if=/dev/urandom of=/etc/munge/munge.key bs=1024 count=1 status=none; }
  mkdir -p /run/munge /var/lib/munge /var/log/munge
  chown munge:munge /run/munge /var/lib/munge /var/log/munge /etc/munge /etc/munge/munge.key
  chmod 400 /etc/munge/munge.key
  setpriv --reuid=munge --regid=munge --clear-groups /usr/sbin/munged >&2
  pgrep -x -n munged >"$folder/munged.pid"
}

start() {
  check
  install_packages
  mkdir -p "$folder/state" "$folder/spool"
  export SLURM_CONF=$folder/slurm.conf
  if ! alive slurmctld; then
    write_conf
    start_munge
    slurmctld -f "$SLURM_CONF" >&2
    slurmd -f "$SLURM_CONF" -N "$(hostname -s)" >&2
  fi
  for _ in $(seq 60); do
    if sinfo -h -o %t 2>/dev/null | grep -qE '^(idle|mix|alloc)'; then
      say "SLURM is up: $(sinfo -h -o 'partition %P, %c cores, %m MB')"
      echo "export SLURM_CONF=$SLURM_CONF"
      return
    fi
    sleep 0.5
  done
  fail "SLURM did not come up within 30 s." "Read $folder/slurmctld.log and slurmd.log."
}

stop() {
  local name pid
  export SLURM_CONF=$folder/slurm.conf
  if alive slurmctld; then # jobs outlive the daemons otherwise
    scancel -u root 2>/dev/null || true
    for _ in $(seq 40); do [ -z "$(squeue -h 2>/dev/null)" ] && break; sleep 0.5; done
  fi
  for name in slurmd slurmctld munged; do
    alive "$name" || continue
    pid=$(cat "$folder/$name.pid")
    kill "$pid"
    for _ in $(seq 60); do kill -0 "$pid" 2>/dev/null || break; sleep 0.5; done
    kill -0 "$pid" 2>/dev/null && kill -9 "$pid"
    rm -f "$folder/$name.pid"
    say "$name is stopped"
  done
}

case $command in
  start | stop | check) "$command" ;;
  *) sed -n '2,7s/^# \{0,1\}//p' "$0"; exit 2 ;;
esac
