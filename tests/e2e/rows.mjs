// What a store's tables hold, read past the server: all of it as of one moment, in one shape for both stores.
//
// Ids are 32 hexadecimal digits, token hashes 64; JSON columns are parsed.

import { execFile } from "node:child_process";
import { createHash } from "node:crypto";
import { promisify } from "node:util";

const BYTES_MAX = 1 << 30;
/** Column: `id`, `hash` or `json`; without a kind the value stands for itself. */
const TABLES = {
  users: "user_id:id name email socials:json timer_total_seconds session_count last_sessions:json successful_sessions",
  sessions: "token_hash:hash user_id:id is_active",
  chat_history: "session_id user_id:id partner_id:id partner_name room_id:id started_at duration messages:json",
  session_completions: "user_id:id room_id:id partner_id:id duration_seconds",
  cooldowns: "lower_id:id higher_id:id expires_at",
};
const COLUMNS = Object.entries(TABLES).map(([table, columns]) => [table, columns.split(" ").map((column) => column.split(":"))]);
const PYTHON = `import sqlite3, sys
rows = sqlite3.connect("file:%s?mode=ro" % sys.argv[1], uri=True)
for sql in sys.argv[2:]:
    print(rows.execute(sql).fetchone()[0])`;
const run = promisify(execFile);

/** The form that rows have of an id on the wire. */
export const bare = (id) => id.replaceAll("-", "");

/** What the store keeps of a token. */
export const hashOf = (token) => createHash("sha256").update(Buffer.from(token, "base64url")).digest("hex");

/** All rows in the database file of a data folder, which must be sound; `inside` as for a server. */
export async function rowsOfFile(path, inside = []) {
  const wrapped = { id: (name) => `lower(hex(${name}))`, hash: (name) => `lower(hex(${name}))`, json: (name) => name };
  const sql = select(wrapped, (fields, table) => `json((SELECT json_group_array(json_object(${fields})) FROM ${table}))`, "json_object");
  const [program, ...words] = [...inside, "python3", "-c", PYTHON, path, "PRAGMA integrity_check", sql];
  const { stdout } = await run(program, words, { maxBuffer: BYTES_MAX });
  const [state, ...text] = stdout.split("\n");
  if (state !== "ok") throw new Error(`the database file is broken: ${state}`);
  return parse(text.join("\n"));
}

/** All rows in the Postgres database at `url`. */
export async function rowsOfPostgres(url) {
  const wrapped = { id: (name) => `replace(${name}::text, '-', '')`, hash: (name) => `encode(${name}, 'hex')`, json: (name) => `${name}::text` };
  const sql = select(wrapped, (fields, table) => `(SELECT coalesce(json_agg(json_build_object(${fields})), '[]') FROM ${table})`, "json_build_object");
  const { stdout } = await run("psql", [url, "--no-psqlrc", "--quiet", "--tuples-only", "--no-align", "--command", sql], { maxBuffer: BYTES_MAX });
  return parse(stdout);
}

function select(wrapped, table, object) {
  const one = ([name, columns]) => `'${name}', ${table(columns.map(([column, kind]) => `'${column}', ${kind ? wrapped[kind](column) : column}`).join(", "), name)}`;
  return `SELECT ${object}(${COLUMNS.map(one).join(", ")})`;
}

function parse(text) {
  const rows = JSON.parse(text);
  for (const [table, columns] of COLUMNS) {
    const kept = columns.filter(([, kind]) => kind === "json").map(([column]) => column);
    for (const row of rows[table]) for (const column of kept) row[column] = JSON.parse(row[column]);
  }
  return rows;
}
