#!/guest/busybox sh
# The first process of a guest. It is started from the initramfs, or from the root tree itself when the kernel has
# mounted that without an initramfs. The host passes its settings on the kernel's command line, and the kernel gives
# what it doesn't know as environment variables:
#
#   GUEST_ROOT, GUEST_ROOT_OPTIONS   tag and mount options of the share that becomes the root; unset: none does
#   GUEST_OVERLAY                    the root is an overlay over that share; its upper layer is on the share of this
#                                    tag, or "tmpfs"
#   GUEST_CHANNELS                   the devices of agent.sh

if [ "$0" != /run/guest/init ]; then
  /guest/busybox mount -t proc proc /proc    # from here on busybox finds its own commands, by /proc/self/exe
  mount -t tmpfs -o mode=755 run /run
  cp -r /guest /run/guest                    # what we run must not depend on the share that it came from
  exec /run/guest/busybox sh /run/guest/init
fi

export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C.UTF-8
mount -t sysfs sys /sys
grep -q " /dev " /proc/mounts || mount -t devtmpfs dev /dev
mkdir -p /dev/pts /dev/shm
mount -t devpts devpts /dev/pts
mount -t tmpfs shm /dev/shm
mount -t tmpfs -o mode=1777 tmp /tmp
ln -s /proc/self/fd /dev/fd
ln -s /proc/self/fd/0 /dev/stdin
ln -s /proc/self/fd/1 /dev/stdout
ln -s /proc/self/fd/2 /dev/stderr
hostname guest
ifconfig lo up

for module in /run/guest/modules/*.ko; do
  [ ! -e "$module" ] || insmod "$module" || echo "guest: cannot load $module"
done
cd /run/guest

[ -n "$GUEST_ROOT" ] || exec /run/guest/agent
share() { mount -t virtiofs -o "$@" || { echo "guest: cannot mount $2"; poweroff -f; }; }

case $GUEST_OVERLAY in
  '') share "$GUEST_ROOT_OPTIONS" "$GUEST_ROOT" /newroot ;;
  *)
    mkdir lower over
    share "$GUEST_ROOT_OPTIONS" "$GUEST_ROOT" lower
    if [ "$GUEST_OVERLAY" = tmpfs ]; then mount -t tmpfs over over; else share rw "$GUEST_OVERLAY" over; fi
    mkdir -p over/upper over/work
    mount -t overlay -o lowerdir=lower,upperdir=over/upper,workdir=over/work overlay /newroot ||
      { echo "guest: cannot mount the overlay"; poweroff -f; }
    ;;
esac
for folder in /proc /sys /dev /run /tmp; do mount --move $folder /newroot$folder; done
exec switch_root /newroot /run/guest/agent
