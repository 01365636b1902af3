// The editor: CodeMirror with Python, lines that are new since the base version shaded, errors at their lines.

import {
  Chunk, Compartment, Decoration, EditorState, EditorView, HighlightStyle, StateEffect, StateField, Text, bracketMatching, defaultKeymap, drawSelection,
  highlightActiveLine, highlightActiveLineGutter, highlightSelectionMatches, highlightSpecialChars, history, historyKeymap, indentOnInput, indentUnit, indentWithTab, keymap,
  lineNumbers, lintGutter, python, searchKeymap, setDiagnostics, syntaxHighlighting, tags, unifiedMergeView,
} from "../vendor/codemirror/codemirror.js";

const HIGHLIGHT_LIMIT = 200_000; // longer text is data: without highlighting it stays fast

const COLOURS = HighlightStyle.define([
  { tag: [tags.keyword, tags.operatorKeyword, tags.modifier], color: "var(--plum)" },
  { tag: [tags.function(tags.definition(tags.variableName)), tags.definition(tags.className)], color: "var(--pos)" },
  { tag: [tags.string, tags.number, tags.bool, tags.null], color: "var(--neg)" },
  { tag: [tags.comment, tags.docString], color: "var(--ink3)" },
  { tag: tags.meta, color: "var(--accent)" },
]);

const setBefore = StateEffect.define();
const fresh = Decoration.line({ class: "wb-new-line" });

/** Shades the lines that the base version lacks. */
const shading = StateField.define({
  create: () => ({ before: null, marks: Decoration.none }),
  update(value, transaction) {
    const effect = transaction.effects.find((one) => one.is(setBefore));
    if (!effect && !transaction.docChanged) return value;
    const before = effect ? effect.value : value.before;
    return { before, marks: before === null ? Decoration.none : shade(before, transaction.state.doc) };
  },
  provide: (field) => EditorView.decorations.from(field, (value) => value.marks),
});

function shade(before, doc) {
  if (doc.length > HIGHLIGHT_LIMIT) return Decoration.none;
  const found = [];
  for (const chunk of Chunk.build(before, doc, { scanLimit: 500 })) {
    if (chunk.fromB === chunk.toB) continue;
    for (let line = doc.lineAt(chunk.fromB); ; line = doc.line(line.number + 1)) {
      found.push(fresh.range(line.from));
      if (line.number === doc.lines || doc.line(line.number + 1).from > chunk.endB) break;
    }
  }
  return Decoration.set(found);
}

/** `onChange(text)` when the user types, `onRun()` on Ctrl-Enter. */
export function makeEditor({ onChange, onRun }) {
  const language = new Compartment();
  const writable = new Compartment();
  const merge = new Compartment();
  let quiet = false;
  let before = null;
  let isLong = false;

  const view = new EditorView({
    state: EditorState.create({
      doc: "",
      extensions: [
        lintGutter(), lineNumbers(), highlightActiveLineGutter(), highlightSpecialChars(), history(), drawSelection(), indentOnInput(), bracketMatching(), highlightActiveLine(),
        highlightSelectionMatches(), indentUnit.of("    "), syntaxHighlighting(COLOURS), shading,
        language.of(python()), writable.of([]), merge.of([]),
        keymap.of([{ key: "Mod-Enter", preventDefault: true, run: () => (onRun(), true) }, { key: "Escape", run: (one) => (one.contentDOM.blur(), true) }, ...searchKeymap, ...defaultKeymap, ...historyKeymap, indentWithTab]),
        EditorView.contentAttributes.of({ "aria-label": "Reward code", spellcheck: "false", autocapitalize: "off" }),
        EditorView.updateListener.of((update) => {
          if (!update.docChanged || quiet) return;
          fit(update.state.doc.length);
          onChange(update.state.doc.toString());
        }),
      ],
    }),
  });

  /** Switches highlighting off where the text is too long for it. */
  function fit(length) {
    const long = length > HIGHLIGHT_LIMIT;
    if (long === isLong) return;
    isLong = long;
    queueMicrotask(() => view.dispatch({ effects: language.reconfigure(long ? [] : python()) }));
  }

  return {
    element: view.dom,
    focus: () => view.focus(),
    get text() {
      return view.state.doc.toString();
    },
    /** Show text, without calling `onChange`. `frozen`: read-only. */
    show(text, { frozen = false } = {}) {
      quiet = true;
      if (text !== view.state.doc.toString()) view.dispatch({ changes: { from: 0, to: view.state.doc.length, insert: text } });
      quiet = false;
      fit(text.length);
      view.dispatch({ effects: writable.reconfigure(frozen ? [EditorState.readOnly.of(true), EditorView.editable.of(false)] : []) });
      view.dom.classList.toggle("wb-frozen", frozen);
    },
    /** The text to compare with, or null. `removed` shows removed lines too. */
    compare(text, removed = false) {
      before = text;
      const usable = text !== null && text.length <= HIGHLIGHT_LIMIT;
      view.dispatch({
        effects: [
          setBefore.of(usable && !removed ? Text.of(text.split("\n")) : null),
          merge.reconfigure(usable && removed ? unifiedMergeView({ original: text, mergeControls: false, gutter: false }) : []),
        ],
      });
    },
    get before() {
      return before;
    },
    /** Errors: [{line, text}]. */
    showErrors(found) {
      const { doc } = view.state;
      view.dispatch(setDiagnostics(view.state, found.filter(({ line }) => line >= 1 && line <= doc.lines).map(({ line, text }) => {
        const { from, to } = doc.line(line);
        return { from, to, severity: "error", message: text.slice(0, 600) };
      })));
    },
    /** Move the cursor to a line. */
    jump(number) {
      const line = view.state.doc.line(Math.max(1, Math.min(number, view.state.doc.lines)));
      view.dispatch({ selection: { anchor: line.from }, scrollIntoView: true });
      view.focus();
    },
  };
}
