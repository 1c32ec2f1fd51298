"use strict";
// The page as a whole: tabs, tables, settings, and where the data come from.

const FOLLOW_MS = 2000;
const TABS = ["training", "episodes", "settings"];
const KINDS = ["episodes", "evaluated"];

const curves = new Curves();
const browser = new Episodes();
const loaded = new Set();
let content = JSON.parse(byId("summary").textContent);

function say(text, problem = false) {
  byId("status").replaceChildren(visible(text));
  byId("status").classList.toggle("problem", problem);
}

function openTab(name) {
  for (const tab of document.querySelectorAll("[role=tab]")) {
    const chosen = tab.getAttribute("aria-controls") === name;
    tab.setAttribute("aria-selected", chosen);
    byId(tab.getAttribute("aria-controls")).hidden = !chosen;
  }
  history.replaceState(null, "", `#${name}`);
  return drawCurves();
}

// Unpack Plotly when its first curves are to be seen.
async function drawCurves() {
  if (byId("training").hidden) return;
  if (!window.Plotly) {
    const code = await (await unpacked(byId("plotly").textContent)).text();
    const script = element("script");
    script.text = code;
    document.head.append(script);
  }
  curves.draw();
}

function showTables() {
  byId("tables").replaceChildren(...content.tables.flatMap(({ title, header, rows }) => [
    element("h2", {}, title), element("div", { class: "scroll" }, table(header, rows))]));
}

function showSettings() {
  const { runs } = content;
  const names = [...new Set(runs.flatMap((run) => Object.keys(run.settings)))];
  const wanted = byId("of-setting").value.toLowerCase();
  const rows = names.map((name) => [name, ...runs.map((run) => run.settings[name] ?? "")])
    .map((row) => ({ row, differs: new Set(row.slice(1)).size > 1 }))
    .filter(({ row, differs }) => row[0].includes(wanted)
      && (differs || !byId("differing").checked));
  const made = table(["setting", ...runs.map((run) => run.name)], rows.map(({ row }) => row));
  rows.forEach(({ differs }, number) => made.tBodies[0].rows[number].classList
    .toggle("differs", differs));
  byId("config").replaceChildren(made);
  byId("events").replaceChildren(...runs.flatMap((run) => [
    element("h2", {}, `Events of ${run.name}`),
    element("p", { class: "hint" }, run.folder),
    element("div", { class: "scroll" }, table(["time", "step", "event", ""],
      run.events.map(({ time, step, event, ...more }) => [time, step, event,
        Object.entries(more).map(([name, value]) => `${name}: ${value}`).join("; ")])))]));
}

function omitted() {
  return content.every > 1 ? `One group of ${content.every} is shown here, evenly chosen;`
    + " the run folder holds all of them." : "";
}

async function embeddedBlocks() {
  return [...document.querySelectorAll(".block")].map((block) => {
    const { kind, run, step } = block.dataset;
    return {
      key: `${kind}/${run}/${step}`,
      rows: async () => (await unpacked(block.textContent)).json(),
    };
  });
}

async function servedBlocks() {
  return content.runs.flatMap((run, number) => KINDS.flatMap((kind) => run[kind].map((step) => {
    const key = `${kind}/${number}/${step}/${content.every}`;
    return { key, rows: async () => (await fetch(key)).json() };
  })));
}

// Unpack the episodes that are new, and show them all.
async function showEpisodes() {
  const blocks = await (content.source === "served" ? servedBlocks() : embeddedBlocks());
  const stale = [...loaded].some((key) => !blocks.some((block) => block.key === key));
  if (stale) {
    loaded.clear();
    browser.clear();
  }
  const fresh = blocks.filter(({ key }) => !loaded.has(key));
  const found = await Promise.all(fresh.map(async ({ key, rows }) => {
    const [run, step] = key.split("/").slice(1).map(Number);
    return (await rows()).map((row) => Object.assign(row, { run, step }));
  }));
  for (const { key } of fresh) loaded.add(key);
  browser.add(found.flat());
  browser.show(content.runs, omitted());
}

async function show() {
  if (content.problem) {
    say(content.problem, true);
    return;
  }
  showTables();
  showSettings();
  curves.show(content);
  await showEpisodes();
}

async function follow() {
  try {
    const answer = await fetch(`summary?known=${encodeURIComponent(content.tag)}`);
    if (answer.status === 200) {
      content = await answer.json();
      await show();
    }
    if (!content.problem) say(content.runs.map(progress).join("; "));
  } catch (error) {
    say(`the server of this page does not answer (${error.message})`, true);
  }
  setTimeout(follow, FOLLOW_MS);
}

function progress(run) {
  const last = run.events.at(-1)?.event ?? "not started";
  return `${run.name}: step ${run.steps} of ${run.planned}, ${last}`;
}

async function start() {
  for (const tab of document.querySelectorAll("[role=tab]")) {
    tab.addEventListener("click", () => openTab(tab.getAttribute("aria-controls")));
  }
  byId("differing").addEventListener("change", showSettings);
  byId("of-setting").addEventListener("input", showSettings);
  await show();
  await openTab(TABS.find((name) => `#${name}` === location.hash) ?? TABS[0]);
  document.documentElement.dataset.state = "ready";
  if (content.source === "served") follow();
}

start().catch((error) => {
  say(`this page cannot be shown: ${error}`, true);
  document.documentElement.dataset.state = "failed";
});
