#!/run/guest/busybox sh
# Runs the scripts that the host sends, one after the other, each in a fresh shell. GUEST_CHANNELS names three devices:
#
#   control   from the host:  "MARK SECONDS LENGTH FOLDER", then LENGTH bytes of script; SECONDS 0: no limit of time
#             to the host:    "ready" once; "more" for each further 2048 bytes of script; "MARK STATUS" when it has
#                             ended, "MARK STATUS late" when it was killed because it was out of time
#   out, err  what scripts write; what is one script's stands between two MARKs
#
# A script writes to pipes, not to the devices themselves: it is to see no terminal, and may open /dev/stderr anew.

cd /run/guest
IFS=,
set -- $GUEST_CHANNELS
unset IFS GUEST_CHANNELS GUEST_ROOT GUEST_ROOT_OPTIONS GUEST_OVERLAY
for device; do
  until [ -c "/dev/$device" ]; do usleep 1000; done
  case $device in tty*) stty -F "/dev/$device" raw -echo ;; esac
done
mkfifo out err never
exec 3<>"/dev/$1" 6<>never
cat out >"/dev/$2" 3>&- 6>&- &
cat err >"/dev/$3" 3>&- 6>&- &
exec 4>out 5>err
echo ready >&3

while :; do
  read -r mark seconds length folder <&3 || { usleep 10000; continue; }  # the host's end isn't open yet
  rm -f script late
  while :; do
    # A serial line of User-Mode Linux whose buffer (4096 bytes) was full once never gives anything again.
    head -c "$((length > 2048 ? 2048 : length))" <&3 >>script
    length=$((length - 2048))
    [ "$length" -gt 0 ] || break
    echo more >&3
  done
  echo -n "$mark" >&4
  echo -n "$mark" >&5
  watchdog=
  if [ "$seconds" != 0 ]; then
    # One process, so that it can be ended without a race: nobody writes to `never`.
    { read -t "$seconds" -r line <&6 || { : >late; kill -KILL "-$(cat leader)"; }; } 3>&- 4>&- 5>&- &
    watchdog=$!
  fi
  # Not in the background: there a shell ignores SIGINT, and so would all that the script starts.
  (
    cd "$folder" &&
      exec setsid /run/guest/busybox sh -c 'echo $$ >/run/guest/leader; exec /bin/sh /run/guest/script'
  ) </dev/null >&4 2>&5 3>&- 4>&- 5>&- 6>&-
  status=$?
  [ -z "$watchdog" ] || { kill -KILL "$watchdog"; wait "$watchdog"; } 2>/dev/null
  echo -n "$mark" >&4
  echo -n "$mark" >&5
  if [ -e late ]; then echo "$mark $status late" >&3; else echo "$mark $status" >&3; fi
done
