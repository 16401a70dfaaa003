#!/bin/busybox sh
# The whole user space of the demo guest. Prints on the first serial port, for ever:
#   BOOT_ID <boot id>                        once
#   COUNT <n> <md5 of the file> <boot id>    some times a second
# After a restore the count goes on by one with the same sum and boot id, or the snapshot is wrong.
# Kernel command line: random_mib=<size of the random file kept in memory, default 16>.
/bin/busybox mkdir -p /proc /sys /dev /memory
/bin/busybox --install -s /bin
export PATH=/bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
mount -t tmpfs -o size=90% tmpfs /memory
exec </dev/null >/dev/ttyS0 2>&1

# The names carry the order in which they depend on each other.
for module in /modules/*.ko; do [ -e "$module" ] && insmod "$module"; done

random_mib=16
for word in $(cat /proc/cmdline); do
  case $word in random_mib=*) random_mib=${word#random_mib=} ;; esac
done
read -r boot_id </proc/sys/kernel/random/boot_id
echo "BOOT_ID $boot_id"
dd if=/dev/urandom of=/memory/random bs=1M count="$random_mib" 2>/dev/null

count=0
while :; do
  count=$((count + 1))
  # Read again for every line: this is what shows that the memory came back whole.
  set -- $(md5sum /memory/random)
  echo "COUNT $count $1 $boot_id"
  # The disk's last word, raw at 1 MiB (sector 2048): what a snapshot of the disk has to agree with.
  if [ -b /dev/vda ] && [ $((count % 8)) = 0 ]; then
    printf '%-511s\n' "COUNT $count $boot_id" | dd of=/dev/vda bs=512 seek=2048 conv=notrunc,fsync 2>/dev/null
  fi
  sleep 0.05
done
