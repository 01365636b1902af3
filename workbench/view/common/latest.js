// Answers that take a while: the old picture stays, dimmed after 300 ms; an answer that comes too late is dropped.

const PATIENCE = 300;

/** `await follow(promise)` gives the answer if nothing newer was asked for meanwhile, else undefined. */
export function takeLatest(element) {
  let ticket = 0;
  let timer = null;
  return async (promise) => {
    const mine = ++ticket;
    clearTimeout(timer);
    timer = setTimeout(() => element.classList.add("waiting"), PATIENCE);
    try {
      const answer = await promise;
      return mine === ticket ? answer : undefined;
    } catch (error) {
      if (mine === ticket) throw error;
      return undefined;
    } finally {
      if (mine === ticket) {
        clearTimeout(timer);
        element.classList.remove("waiting");
      }
    }
  };
}
