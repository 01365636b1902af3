// Responses that take a while: the element keeps what it shows, dimmed after 300 ms; a response that a newer request has overtaken
// is dropped.

const DIM_AFTER = 300;

/** A function `follow`: `await follow(promise)` is the promise's value, or undefined when `follow` was called again meanwhile. */
export function takeLatest(element) {
  let ticket = 0;
  let timer = null;
  return async (promise) => {
    const mine = ++ticket;
    clearTimeout(timer);
    timer = setTimeout(() => element.classList.add("waiting"), DIM_AFTER);
    try {
      const value = await promise;
      return mine === ticket ? value : undefined;
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
