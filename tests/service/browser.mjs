// Tries the page of the example `axum_service` in a real browser: starts a job, sees the bar move, pauses,
// resumes and cancels it, and compares what the page shows with what the service says. Then it starts jobs through
// the API, and controls them from the list of all jobs.
//
//   node browser.mjs SERVICE CHROMIUM MODULES PICTURES
//
// MODULES is a folder with playwright-core in its node_modules; PICTURES is where the screenshots go.

import { mkdtempSync, rmSync } from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";

const [service, chromium, modules, pictures] = process.argv.slice(2);
const playwright = createRequire(join(resolve(modules), "require.cjs"))("playwright-core");

const LIMIT = 15_000;
let passed = 0;

function check(what, holds, found) {
  if (!holds) throw new Error(`${what}: found ${JSON.stringify(found)}`);
  passed += 1;
}

const pause = (milliseconds) => new Promise((done) => setTimeout(done, milliseconds));

// Asks again and again until what is found will do; a check that never does fails.
async function until(what, find, will) {
  const end = Date.now() + LIMIT;
  let found = await find();
  while (!will(found) && Date.now() < end) {
    await pause(30);
    found = await find();
  }
  check(what, will(found), found);
  return found;
}

const profile = mkdtempSync(join(tmpdir(), "browser-"));
const browser = await playwright.chromium.launchPersistentContext(profile, {
  executablePath: chromium,
  headless: true,
  viewport: { width: 1100, height: 800 },
  args: [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
  ],
});

try {
  const page = browser.pages()[0] ?? (await browser.newPage());
  page.setDefaultTimeout(LIMIT);
  const complaints = [];
  page.on("pageerror", (error) => complaints.push(String(error)));
  page.on("console", (message) => message.type() === "error" && complaints.push(message.text()));
  const elsewhere = [];
  page.on("request", (request) => {
    const url = request.url();
    if (!url.startsWith(service) && !url.startsWith("data:")) elsewhere.push(url);
  });

  const text = (id) => page.locator(`#${id}`).textContent();
  const number = async (id) => Number(await text(id));
  const state = () => text("state");
  const settled = async () => Number(await page.locator("#bar").getAttribute("aria-valuenow"));
  const width = (id) => page.locator(`#${id}`).evaluate((part) => part.getBoundingClientRect().width);
  const picture = (name) => page.screenshot({ path: join(pictures, `${name}.png`), fullPage: true });
  const button = (name) => page.getByRole("button", { name, exact: true });
  const fits = () => page.evaluate(() => document.documentElement.scrollWidth <= window.innerWidth);
  const ask = async (path) => (await fetch(service + path)).json();
  // The job that the page shows in detail, as the service knows it.
  const job = () => ask(`/jobs/${new URL(page.url()).hash.slice(1)}`);

  async function start(fields) {
    for (const [name, value] of Object.entries(fields)) await page.locator(`#order [name=${name}]`).fill(String(value));
    await button("Start").click();
  }

  // --- before any job --------------------------------------------------------------------------

  await page.goto(service);
  check("the page has its title", (await page.title()) === "Fetch jobs", await page.title());
  check("no job is shown yet", await page.locator("#job").isHidden(), "a job");
  check("the list is empty", await page.locator("#nothing").isVisible(), "a job");
  await until("the page shows the health", () => text("health"), (found) => /^\d+ of \d+ permits in use/.test(found));
  const unnamed = await page.locator("input, textarea, button").evaluateAll((all) =>
    all.filter((one) => !(one.labels?.length || one.textContent.trim())).map((one) => one.outerHTML),
  );
  check("every control has a name", unnamed.length === 0, unnamed);
  await picture("empty");

  // --- a job that moves, pauses, resumes and is cancelled ---------------------------------------

  await start({ count: 600, delay_ms: 200, busy: 5, hang: 0, drop: 3, gone: 5, concurrency: 12 });
  // The page has the order's answer when it names the job; before that it shows no job, and its state is that of an empty page.
  await until("the title names the job", () => text("job-title"), (found) => found === "Job 1");
  await until("the job runs", state, (found) => found === "running");
  await until("the bar moves", settled, (found) => found >= 10);
  const early = await width("bar-good");
  await until("the bar grows", () => width("bar-good"), (found) => found > early && early > 0);
  await until("failures are listed", () => page.locator("#rows tr").count(), (found) => found >= 2);
  await picture("running");

  await button("Pause").click();
  await until("the job is paused", state, (found) => found === "paused");
  await until("what runs finishes", () => number("running"), (found) => found === 0);
  const paused = await settled();
  await pause(1_500);
  check("the count stands still while paused", (await settled()) === paused, [paused, await settled()]);
  const known = await job();
  check("the service says the same", known.state === "paused" && known.successes + known.failures === paused, known);
  check("a paused job can be resumed only", (await button("Pause").isDisabled()) && (await button("Resume").isEnabled()), "");
  await picture("paused");

  await page.reload();
  await until("a reload comes back to the job", () => text("job-title"), (found) => found === "Job 1");
  check("it is still paused", (await state()) === "paused", await state());
  const failures = await number("failures");
  await until("the failures are read again from the first", () => page.locator("#rows tr").count(), (found) => found === failures);

  await button("Resume").press("Space");
  await until("the job runs again, by the keyboard", state, (found) => found === "running");
  await until("the count goes on", settled, (found) => found >= paused + 10);

  await page.locator("#at-once").fill("2");
  await button("Set").click();
  await until("fewer run at once", () => number("running"), (found) => found <= 2);

  await page.setViewportSize({ width: 360, height: 640 });
  check("the page fits a small window", await fits(), await page.evaluate(() => document.documentElement.scrollWidth));
  await picture("small");
  await page.emulateMedia({ colorScheme: "dark" });
  await picture("small-dark");
  await page.emulateMedia({ colorScheme: "light" });
  await page.setViewportSize({ width: 1100, height: 800 });

  await button("Cancel").click();
  await until("the job is cancelled", state, (found) => found === "cancelled");
  const counts = {};
  for (const name of ["successes", "failures", "cancelled", "not_started", "running"]) counts[name] = await number(name);
  const sum = counts.successes + counts.failures + counts.cancelled + counts.not_started;
  check("every item is accounted for", sum === 600 && counts.running === 0, counts);
  check("some were not started", counts.not_started > 0, counts);
  const last = await job();
  const differs = Object.keys(counts).filter((name) => last[name] !== counts[name]);
  check("the final counts are those of the service", differs.length === 0, [counts, last]);
  for (const name of ["Pause", "Resume", "Drain", "Cancel", "Set"]) {
    check(`${name} has nothing more to do`, await button(name).isDisabled(), "enabled");
  }
  await picture("cancelled");

  // --- a job that goes to its end ----------------------------------------------------------------

  await start({ count: 40, delay_ms: 20, busy: 0, hang: 0, drop: 0, gone: 100, concurrency: 8 });
  await until("the next job is shown", () => text("job-title"), (found) => found === "Job 2");
  await until("it goes to its end", state, (found) => found === "succeeded");
  check("the bar is full", (await settled()) === 40, await settled());
  check("every failure is counted", (await number("failures")) === 40, await number("failures"));
  await until("every failure is listed", () => page.locator("#rows tr").count(), (found) => found === 40);
  const what = await page.locator("#rows tr").first().textContent();
  check("a failure says why", what.includes("410 Gone"), what);
  await picture("failures");

  await start({ ratio: 50 });
  await until("too many failures end a job", state, (found) => found === "failed");
  check("it says why", (await text("account")).includes("21 items failed, 20 allowed"), await text("account"));

  await start({ count: 500, delay_ms: 400, gone: 0, concurrency: 4, ratio: 0 });
  await until("the fourth job is shown", () => text("job-title"), (found) => found === "Job 4");
  await until("it runs", settled, (found) => found >= 4);
  await button("Drain").click();
  await until("it ends when what runs has finished", state, (found) => found === "cancelled");
  const drained = await job();
  check("draining cancels nothing that runs", drained.cancelled === 0 && drained.successes >= 8, drained);

  // --- what is refused ---------------------------------------------------------------------------

  await page.getByLabel("my own URLs").check();
  check("the fields of the other kind are away", await page.locator("#generate").isHidden(), "visible");
  check("nothing has gone wrong so far", complaints.length === 0, complaints);
  await page.locator("[name=list]").fill("ftp://example.com/\n");
  await button("Start").click();
  await until("a bad URL is told", () => text("order-error"), (found) => found.includes("ftp"));
  await picture("refused");
  await page.locator("[name=list]").fill(`${service}/health\n\n${service}/nowhere\n`);
  await button("Start").click();
  await until("a list of URLs runs", () => text("job-title"), (found) => found === "Job 5");
  await until("it ends", state, (found) => found === "succeeded");
  const both = [await number("successes"), await number("failures")];
  check("one page is there and one is not", both[0] === 1 && both[1] === 1, both);

  // --- jobs that were started elsewhere ----------------------------------------------------------

  const row = (number) => page.locator("#jobs .row").filter({ has: button(`Job ${number}`) });
  const rowState = (number) => row(number).locator(".state").textContent();
  const rowSettled = async (number) => Number(await row(number).getByRole("progressbar").getAttribute("aria-valuenow"));
  const titles = () => page.locator("#jobs .open").allTextContents();

  check("the list has the jobs of this page", (await titles()).join() === "Job 5,Job 4,Job 3,Job 2,Job 1", await titles());
  await page.goto("about:blank");
  await page.goto(service);
  await until("a new page lists all jobs", async () => (await titles()).length, (found) => found === 5);
  check("the page does not say that there is none", await page.locator("#nothing").isHidden(), "no job yet");
  check("no job is shown in detail", await page.locator("#job").isHidden(), "a job");

  const loads = [];
  page.on("load", () => loads.push(page.url()));
  const started = [];
  for (const generate of [400, 300, 200]) {
    const body = JSON.stringify({ generate, delay_ms: 200, concurrency: 4, gone: 0.1 });
    const answer = await fetch(`${service}/jobs`, { method: "POST", headers: { "content-type": "application/json" }, body });
    started.push(await answer.json());
  }
  await until("jobs of the API appear", titles, (found) => found.slice(0, 3).join() === "Job 8,Job 7,Job 6");
  for (const number of [6, 7, 8]) {
    await until(`the bar of job ${number} moves`, () => rowSettled(number), (found) => found >= 8);
    check(`job ${number} runs`, (await rowState(number)) === "running", await rowState(number));
  }
  await picture("list");

  await button("Pause job 7").click();
  await until("a job is paused from the list", () => rowState(7), (found) => found === "paused");
  check("the service says the same", (await ask(`/jobs/${started[1].id}`)).state === "paused", started[1]);
  await button("Cancel job 8").click();
  await until("a job is cancelled from the list", () => rowState(8), (found) => found === "cancelled");
  check("it has nothing more to do", await button("Cancel job 8").isDisabled(), "enabled");
  await button("Resume job 7").click();
  await until("a job is resumed from the list", () => rowState(7), (found) => found === "running");
  await button("Drain job 6").click();
  await until("a job is drained from the list", () => rowState(6), (found) => found === "cancelled");

  await button("Job 7").click();
  await until("a job of the list is shown in detail", () => text("job-title"), (found) => found === "Job 7");
  check("the list marks it", (await row(7).getAttribute("aria-current")) === "true", await row(7).getAttribute("aria-current"));
  const before = await settled();
  await until("its bar moves", settled, (found) => found > before);
  await picture("list-and-job");
  await page.emulateMedia({ colorScheme: "dark" });
  await picture("list-and-job-dark");
  await page.setViewportSize({ width: 360, height: 640 });
  check("the list fits a small window", await fits(), await page.evaluate(() => document.documentElement.scrollWidth));
  await picture("list-small-dark");
  await page.emulateMedia({ colorScheme: "light" });
  await picture("list-small");
  await page.setViewportSize({ width: 1100, height: 800 });
  const overlaps = await page.evaluate(() => {
    const boxes = [...document.querySelectorAll("#jobs .row > *, #jobs .foot > *, #jobs .title > *")]
      .map((one) => [one, one.getBoundingClientRect()]);
    const cross = (a, b) => a.left < b.right - 1 && b.left < a.right - 1 && a.top < b.bottom - 1 && b.top < a.bottom - 1;
    return boxes.flatMap(([one, a], at) => boxes.slice(at + 1)
      .filter(([other, b]) => !one.contains(other) && !other.contains(one) && cross(a, b))
      .map(([other]) => `${one.className} and ${other.className}`));
  });
  check("nothing in the list overlaps", overlaps.length === 0, overlaps);
  await button("Cancel").click();
  await until("the list shows the end", () => rowState(7), (found) => found === "cancelled");
  check("all of this was without a reload", loads.length === 0, loads);

  // The browser itself reports the answer 422 to the bad URL.
  const own = complaints.filter((complaint) => !complaint.includes("422"));
  check("the page has no errors", own.length === 0, own);
  check("nothing is asked of anybody else", elsewhere.length === 0, elsewhere);
  console.log(`browser: ${passed} checks passed, Chromium ${browser.browser()?.version() ?? ""}`);
} catch (error) {
  console.error(`browser: after ${passed} checks: ${error.message}`);
  process.exitCode = 1;
} finally {
  await browser.close();
  rmSync(profile, { recursive: true, force: true });
}
