/** The address of New run, filled in for a fork of `run` from its last checkpoint at or before `step`, with these settings. */
export function forkLink(run, step, settings = {}) {
  const query = new URLSearchParams({ fork: run, step: String(step) });
  if (Object.keys(settings).length) query.set("set", JSON.stringify(settings));
  return `/new?${query}`;
}
