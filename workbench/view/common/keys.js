// Keyboard shortcuts. They are off while a text field has the focus, a modifier is held, or a dialog is open.

const TYPING = "input, textarea, select, [contenteditable=''], [contenteditable='true'], .cm-editor";

/** Call `actions[key]` for plain keys pressed anywhere on the page. Returns a function that stops listening. */
export function listen(actions) {
  function onKey(event) {
    if (event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.target.closest?.(TYPING) || document.querySelector("dialog[open]")) return;
    const focused = event.target.closest?.("a, button, summary, [role=slider], [role=button]");
    if (focused && ["Enter", " "].includes(event.key)) return; // the focused control has its own use for them
    const digit = /^[1-9]$/.test(event.key) ? Number(event.key) : null;
    const action = digit ? actions.digit && (() => actions.digit(digit)) : Object.hasOwn(actions, event.key) ? actions[event.key] : null;
    if (!action) return;
    event.preventDefault();
    action();
  }
  document.addEventListener("keydown", onKey);
  return () => document.removeEventListener("keydown", onKey);
}
