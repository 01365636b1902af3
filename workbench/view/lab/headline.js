// The headline of the lab: what the last trial and the last attack found.

import { capital, count, percent } from "../common/format.js";

/** `label`: v3*; `result`: the summary of the last trial, `attack` of the last attack, both of the code in the editor now. */
export function headline({ label, problem, result, attack, busy, stale }) {
  if (problem) return problem.line ? `Line ${problem.line} needs a change before this can run.` : firstSentence(problem.text);
  if (busy && !result) return "Scoring…";
  if (!result && !attack) return stale ? `${capital(label)} has changed. Run it to see what it does.` : "Try a reward before a run pays for it.";
  return [result && ofTrial(label, result, attack), attack && ofAttack(label, attack, Boolean(result))].filter(Boolean).join("");
}

function ofTrial(label, { ended, checks, forecast }, attack) {
  const end = attack ? "" : ".";
  if (ended) return `${label} was stopped: ${lower(firstSentence(ended.text))}`;
  if (checks.failed === checks.scored) return `${label} fails on every sample${end}`;
  if (checks.failed) return `${label} fails on ${checks.failed} of ${count(checks.scored, "sample")}${end}`;
  if (checks.constant) return `${label} scores every sample the same: no signal${end}`;
  if (!forecast) return `${label} scored ${count(checks.scored, "sample")}${end}`;
  const { dead } = forecast.new;
  const before = forecast.old?.dead;
  if (dead < 0.005) return `${label} gives every group a signal${end}`;
  if (before !== undefined && Math.abs(before - dead) >= 0.01) return `${label} leaves ${percent(dead)} of groups without a signal, ${percent(before)} before${end}`;
  return `${label} leaves ${percent(dead)} of groups without a signal${end}`;
}

function ofAttack(label, { tricks, through }, follows) {
  const broken = tricks.filter(({ verdict }) => verdict === "breaks").length;
  const doubtful = tricks.filter(({ verdict }) => verdict === "doubtful").length;
  const start = follows ? ", " : `${label}: `;
  if (through) return `${start}${follows ? "but " : ""}${count(through, "attack gets", "attacks get")} through.`;
  if (broken) return `${start}${follows ? "but " : ""}it breaks on ${count(broken, "attack")}.`;
  if (doubtful) return `${start}${follows ? "and " : ""}${count(doubtful, "attack earns", "attacks earn")} a part.`;
  return `${start}${follows ? "and " : ""}no attack gets through.`;
}

const lower = (text) => text.charAt(0).toLowerCase() + text.slice(1);
const firstSentence = (text) => text.split("\n")[0].replace(/(?<=[.!?]) .*$/s, "");

/** Verdicts in words. */
export const VERDICTS = { hackable: "gets through", breaks: "breaks it", doubtful: "earns a part", untested: "does not apply", safe: "holds" };
