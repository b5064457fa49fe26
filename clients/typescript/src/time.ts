/** The time of a message. Fractions of a millisecond are lost. */
export function dateOf(time: { seconds: bigint; nanos: number } | undefined): Date | undefined {
  return time && new Date(Number(time.seconds) * 1000 + time.nanos / 1e6);
}
