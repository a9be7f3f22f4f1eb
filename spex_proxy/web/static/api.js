// What several scripts need: asking the JSON API, following a job, and the reviewer's name.

export const API = "/spex/api/v1";
const ENDED = ["done", "failed", "cancelled"];
const POLL_MS = 2000;

export async function ask(path, body) {
  const options = { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body ?? {}) };
  const answer = await fetch(API + path, options);
  const said = await answer.json().catch(() => ({}));
  if (!answer.ok) throw new Error(said.error?.message ?? `the server answered ${answer.status}`);
  return said;
}

export const words = (error) => (error instanceof TypeError ? "The server can’t be reached." : error.message);

// Tells every state of a job; resolves with its last. By events if they come, else by asking.
export function follow(jobId, tell) {
  const path = `${API}/jobs/${encodeURIComponent(jobId)}`;
  return new Promise((resolve) => {
    const events = new EventSource(`${path}/events`);
    const end = (job) => { events.close(); clearInterval(poll); resolve(job); };
    const poll = setInterval(async () => {
      const answer = await fetch(path).catch(() => null);
      if (!answer?.ok) return;
      const job = await answer.json();
      if (ENDED.includes(job.state)) end(job); else tell(job);
    }, POLL_MS);
    events.addEventListener("progress", (event) => tell(JSON.parse(event.data)));
    events.addEventListener("end", (event) => end(JSON.parse(event.data)));
  });
}

export function inWords(job) {
  if (job.state === "queued") return job.reason ? `Will be tried again: ${job.reason}` : `Waiting, place ${job.position ?? 1} in the queue`;
  return job.state === "running" ? "The model is being asked" : job.state;
}

// ---- who reviews: kept in this browser, and sent with what they do ----

const KEY = "spex-reviewer";
const field = document.querySelector("#me");

function remembered() {
  try { return localStorage.getItem(KEY) ?? ""; } catch { return ""; }
}

if (field) {
  field.value = remembered();
  field.addEventListener("input", () => { try { localStorage.setItem(KEY, field.value.trim()); } catch { /* a private window */ } });
}

// The reviewer's name; where it is needed and missing, the field is focused and an error says so.
export function me(isNeeded = true) {
  const name = (field?.value ?? remembered()).trim();
  if (name || !isNeeded) return name || "reviewer";
  field.focus();
  throw new Error("Say who you are first: it stands in the history.");
}
