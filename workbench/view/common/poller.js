// One poller a page: every second while the run goes on, every ten when it is over, never while the page is hidden.

const RUNNING = new Set(["queued", "starting", "running", "paused", "stopping"]);
const RETRIES = [1, 2, 4, 8];

/** How many seconds until the next look at a run in this state. */
export const interval = (state) => (RUNNING.has(state) ? 1 : 10);

/**
 * Call `look()` again and again; it resolves to the seconds until the next time. When it fails because nobody answered,
 * `onLost(seconds)` counts down to the next try, and `onLost(null)` says that the server is back. Returns a stop function.
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
      if (error.status) console.error(error); // the server is there and said no: try again, calmly
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
