# Runs every NAME.sh of the directory outside that the kernel argument `outside=` names, which leaves NAME.out, NAME.err and at
# last NAME.status there: see test/support/systemd-host.ts.
mkdir -p /run/outside
mount -t hostfs -o "$(sed 's/.*outside=\([^ ]*\).*/\1/' /proc/cmdline)" outside /run/outside
cd /run/outside || exit
while :; do
  for script in *.sh; do
    [ -e "$script" ] || continue
    name=${script%.sh}
    mv "$script" "$name.begun"
    (
      sh "$name.begun" >"$name.out" 2>"$name.err" </dev/null
      echo $? >"$name.ended"
      mv "$name.ended" "$name.status"
    ) &
  done
  sleep 0.1 # nothing tells of what is written outside
done
