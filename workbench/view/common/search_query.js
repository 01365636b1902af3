// A search as the cursor keeps it: the text as `q`, all other conditions as one query string in `find`.

/** The search of a cursor as {text, ...conditions}. */
export const queryOf = ({ q, find }) => ({ ...Object.fromEntries(new URLSearchParams(find ?? "")), ...(q ? { text: q } : {}) });

/** The fields of a cursor for {text, ...conditions}; empty conditions are left out. */
export function cursorFields(conditions) {
  const { text, ...rest } = conditions;
  const query = new URLSearchParams(Object.entries(rest).filter(([, value]) => value !== "" && value !== null && value !== undefined));
  return { q: text || null, find: query.toString() || null };
}

/** Whether a cursor carries a search. */
export const hasSearch = ({ q, find }) => q !== null || find !== null;
