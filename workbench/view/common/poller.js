// One poller a page: every second while the run trains, every ten seconds when it is over, never while the page is hidden.

const RUNNING = new Set(["queued", "starting", "running", "paused", "stopping"]);
const RETRIES = [1, 2, 4, 8];

/** Seconds until the next poll of a run in this state. */
export const interval = (state) => (RUNNING.has(state) ? 1 : 10);

/**
 * Calls `look()` again and again; it resolves to the seconds until the next call. While the server cannot be reached,
 * `onLost(seconds)` counts down to the next try; `onLost(null)` means that it is back. Returns `now` (poll at once) and `stop`.
 */
export function poll(look, onLost) {
  let timer = null;
  let failures = 0;
  let stopped = false;
  let looking = false;

  async function turn() {
    if (looking || stopped) return;
    clearTimeout(timer);
    looking = true;
    let seconds;
    try {
      seconds = await look();
      if (failures) onLost(null);
      failures = 0;
    } catch (error) {
      if (error.status) console.error(error); // the server refused: try again later
      seconds = error.status ? 10 : RETRIES[Math.min(failures, RETRIES.length - 1)];
      failures += error.status ? 0 : 1;
      if (!error.status) return countDown(seconds);
    } finally {
      looking = false;
    }
    schedule(turn, seconds);
  }

  function countDown(seconds) {
    if (seconds <= 0) return turn();
    onLost(seconds);
    schedule(() => countDown(seconds - 1), 1);
  }

  function schedule(task, seconds) {
    clearTimeout(timer);
    if (!stopped && !document.hidden && Number.isFinite(seconds)) timer = setTimeout(task, seconds * 1000);
  }

  const onVisibility = () => (document.hidden ? clearTimeout(timer) : turn());
  document.addEventListener("visibilitychange", onVisibility);
  turn();
  return {
    now: turn,
    stop() {
      stopped = true;
      clearTimeout(timer);
      document.removeEventListener("visibilitychange", onVisibility);
    },
  };
}
