"use strict";
// The episode browser: filters, a list by pages, and one or two episodes as conversations.

const PAGE_ROWS = 100;
const LONG_REPLY = 1200;
const ANY = ["", "any"];
const YES_NO = [ANY, ["yes", "yes"], ["no", "no"]];
const USES = [ANY, ["learned", "yes"], ["carried", "carried into the next step"],
  ["dropped", "no"], ["evaluated", "evaluation, alone"]];

const words = (name) => name.replaceAll("_", " ");
const queriesOf = (episode) => episode.consultations.flat();
const yesNo = (value) => (value ? "yes" : "no");

class Episodes {
  constructor() {
    this.all = [];
    this.runs = [];
    this.shown = [];
    this.start = 0;
    this.chosen = null;
    fill(byId("of-consulted"), YES_NO);
    fill(byId("of-refused"), YES_NO);
    fill(byId("of-missing"), YES_NO);
    fill(byId("of-use"), USES);
    byId("filters").addEventListener("input", () => this.filter());
    byId("filters").addEventListener("submit", (event) => event.preventDefault());
    byId("filters").addEventListener("reset", () => setTimeout(() => this.filter()));
    byId("newer").addEventListener("click", () => this.turnTo(this.start - PAGE_ROWS));
    byId("older").addEventListener("click", () => this.turnTo(this.start + PAGE_ROWS));
    byId("previous").addEventListener("click", () => this.move(-1));
    byId("next").addEventListener("click", () => this.move(1));
    byId("beside").addEventListener("change", () => this.read());
    byId("rows").addEventListener("keydown", (event) => this.pressed(event));
  }

  // The newest step comes first; within it, groups and members in their order.
  add(episodes) {
    this.all.push(...episodes);
    this.all.sort((a, b) => b.step - a.step || a.run - b.run || a.group - b.group
      || a.member - b.member);
  }

  clear() {
    this.all = [];
  }

  // Offer what is there, and show it.
  show(runs, omitted) {
    this.runs = runs;
    const values = (name) => [...new Set(this.all.map((one) => one[name]))].filter(Boolean);
    const named = (name) => [ANY, ...values(name).sort().map((one) => [one, words(one)])];
    fill(byId("of-run"), [ANY, ...runs.map((run, number) => [String(number), run.name])]);
    fill(byId("of-step"), [ANY, ...values("step").map((step) => [String(step), String(step)])]);
    fill(byId("of-paradigm"), named("paradigm"));
    fill(byId("of-verdict"), named("status"));
    byId("omitted").replaceChildren(omitted);
    this.filter();
  }

  filter() {
    const wanted = (id) => byId(id).value;
    const text = wanted("of-text").toLowerCase();
    const is = (id, value) => !wanted(id) || wanted(id) === value;
    this.shown = this.all.filter((one) => {
      const queries = queriesOf(one);
      return is("of-run", String(one.run)) && is("of-step", String(one.step))
        && is("of-paradigm", one.paradigm) && is("of-verdict", one.status)
        && is("of-consulted", yesNo(queries.length))
        && is("of-refused", yesNo(queries.some((query) => !query.accepted)))
        && is("of-missing", yesNo(queries.some(isMissing)))
        && is("of-use", one.use) && one.problem_id.includes(wanted("of-problem"))
        && (!text || one.messages.some(({ content }) => content.toLowerCase().includes(text)));
    });
    const place = Math.max(0, this.shown.indexOf(this.chosen));
    this.turnTo(place - (place % PAGE_ROWS));
    if (!this.shown.includes(this.chosen)) this.choose(this.shown[0] ?? null);
  }

  showRows() {
    const page = this.shown.slice(this.start, this.start + PAGE_ROWS);
    const several = this.runs.length > 1;
    const header = [...(several ? ["run"] : []), "step", "problem", "verdict", "asked", "refused",
      "no reply", "tokens"];
    byId("rows").tHead.replaceChildren(
      element("tr", {}, ...header.map((name) => element("th", {}, name))));
    byId("rows").tBodies[0].replaceChildren(...page.map((one) => this.row(one, several)));
    const end = this.start + page.length;
    const first = this.shown.length ? this.start + 1 : 0;
    byId("count").replaceChildren(`${first} to ${end} of ${this.shown.length}`);
    byId("newer").disabled = this.start === 0;
    byId("older").disabled = end >= this.shown.length;
    this.mark();
  }

  // Show which row is chosen; it alone is in the order of the tab key.
  mark() {
    const place = this.shown.indexOf(this.chosen);
    [...byId("rows").tBodies[0].rows].forEach((row, number) => {
      const chosen = this.start + number === place;
      row.setAttribute("aria-selected", chosen);
      row.tabIndex = chosen ? 0 : -1;
      if (chosen) row.scrollIntoView({ block: "nearest" });
    });
    byId("previous").disabled = place < 1;
    byId("next").disabled = place < 0 || place >= this.shown.length - 1;
  }

  row(one, several) {
    const queries = queriesOf(one);
    const refused = queries.filter((query) => !query.accepted).length;
    const cells = [...(several ? [this.runs[one.run].name] : []), one.step,
      `${one.problem_id} #${one.member + 1}`, words(one.status), queries.length || "",
      refused || "", queries.filter(isMissing).length || "", one.policy_tokens ?? ""];
    const row = element("tr", { class: one.status === "correct" ? "correct" : "incorrect" },
      ...cells.map((cell) => element("td", {}, cell)));
    row.addEventListener("click", () => this.choose(one));
    return row;
  }

  turnTo(start) {
    this.start = start;
    this.showRows();
  }

  pressed(event) {
    const by = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (!by) return;
    event.preventDefault();
    this.move(by);
    byId("rows").querySelector("[aria-selected=true]")?.focus();
  }

  move(by) {
    const next = this.shown[this.shown.indexOf(this.chosen) + by];
    if (next) this.choose(next);
  }

  choose(one) {
    this.chosen = one;
    const place = Math.max(0, this.shown.indexOf(one));
    const start = place - (place % PAGE_ROWS);
    if (start === this.start) this.mark();
    else this.turnTo(start);
    this.offerOthers();
    this.read();
  }

  // Other episodes of the same problem: those of other runs first, then the nearest steps.
  offerOthers() {
    const one = this.chosen;
    const key = (other) => Math.abs(other.step - (one?.step ?? 0));
    this.others = one ? this.all.filter((other) => other !== one
      && other.problem_id === one.problem_id) : [];
    this.others.sort((a, b) => (a.run === one.run) - (b.run === one.run) || key(a) - key(b));
    const named = (other) => `${this.runs[other.run].name}, step ${other.step}, `
      + `#${other.member + 1}, ${words(other.status)}`;
    byId("beside").value = "";
    fill(byId("beside"), [["", `another on this problem (${this.others.length})`],
      ...this.others.map((other, number) => [String(number), named(other)])]);
  }

  read() {
    const other = this.others[byId("beside").value];
    byId("right").hidden = !other;
    byId("pair").classList.toggle("two", Boolean(other));
    byId("left").replaceChildren(...(this.chosen ? this.conversation(this.chosen)
      : ["No episode."]));
    byId("right").replaceChildren(...(other ? this.conversation(other) : []));
  }

  conversation(episode) {
    const asked = [...episode.consultations];
    const parts = [element("h2", {}, `${this.runs[episode.run].name}, step ${episode.step}, `
      + `${episode.problem_id} #${episode.member + 1}`), facts(episode)];
    let turn = 0;
    for (const message of episode.messages) {
      if (message.role === "assistant") turn += 1;
      parts.push(bubble(message, episode, turn));
      if (message.action === "consult" && asked.length) parts.push(consultation(asked.shift()));
    }
    return [...parts, ...asked.map(consultation)];
  }
}

function facts(episode) {
  const known = (value) => value ?? "not recorded";
  const rows = [
    ["verdict", words(episode.status)],
    ["answer", episode.given ?? (episode.use ? "none" : "not recorded")],
    ["gold answer", episode.answer],
    ["reward", episode.reward.toFixed(3)],
    ["advantage", episode.advantage === null ? learnedHow(episode) : signed(episode.advantage)],
    ["rules", episode.turn_budget === 1 || episode.queries_per_turn === 0 ? "alone"
      : `turn budget ${episode.turn_budget}, ${known(episode.queries_per_turn)} queries a turn, `
        + `acceptance rate ${episode.acceptance_rate.toFixed(2)}`],
    ["paradigm", words(episode.paradigm)],
    ["tokens", `${known(episode.policy_tokens)} written, ${known(episode.environment_tokens)} read`],
    ["end", words(episode.stop_reason)],
  ];
  const list = element("dl", { class: "facts" });
  for (const [name, value] of rows) {
    list.append(element("div", {}, element("dt", {}, name), element("dd", {}, value)));
  }
  return list;
}

const signed = (value) => (value > 0 ? "+" : "") + value.toFixed(3);

function learnedHow(episode) {
  const how = { carried: "carried into the next step", dropped: "not learned from",
    evaluated: "evaluated, alone" };
  return how[episode.use] ?? "not recorded";
}

function bubble(message, episode, turn) {
  const mine = message.role === "assistant";
  const head = mine ? ["policy", `turn ${turn}`] : ["environment"];
  if (message.action) head.push(message.action);
  if (message.reason) head.push(message.reason);
  if (message.tokens !== null) head.push(`${message.tokens} tokens`);
  const shade = mine && episode.use === "learned" ? shadeOf(episode.advantage) : "read";
  return element("div", { class: `message ${mine ? "policy" : "environment"}` },
    element("p", { class: "speaker" }, head.join(" · ")),
    element("pre", { class: shade }, message.content));
}

// Whether a query passed the gate and nobody answered it.
function isMissing(query) {
  return query.accepted && query.reply === null;
}

function shadeOf(advantage) {
  if (advantage > 0) return "up";
  return advantage < 0 ? "down" : "level";
}

function consultation(asked) {
  return element("div", { class: "consultation" }, ...asked.map((query, slot) => {
    const seconds = query.latency_s === null ? "" : `${query.latency_s.toPrecision(2)} s`;
    const gate = query.accepted ? "accepted" : "refused";
    const head = element("p", { class: "speaker" }, `query ${slot + 1} · gate: `,
      element("span", { class: gate }, gate),
      ...[query.expert, seconds].filter(Boolean).map((part) => ` · ${part}`));
    return element("div", { class: "query" }, head, element("pre", {}, query.query), reply(query));
  }));
}

function reply(query) {
  if (query.reply === null) {
    return element("p", { class: "unavailable" }, `no reply: ${query.unavailable ?? "unknown"}`);
  }
  const text = element("pre", { class: "reply" }, query.reply);
  if (query.reply.length <= LONG_REPLY) return text;
  return element("details", {}, element("summary", {}, `${query.reply.length} characters`), text);
}
