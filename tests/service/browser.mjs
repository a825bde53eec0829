// Tries the page of the example `axum_service` in a real browser: starts a job, sees the bar move, pauses,
// resumes and cancels it, and compares what the page shows with what the service says.
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

  async function start(fields) {
    for (const [name, value] of Object.entries(fields)) await page.locator(`#order [name=${name}]`).fill(String(value));
    await button("Start").click();
  }

  // --- before any job --------------------------------------------------------------------------

  await page.goto(service);
  check("the page has its title", (await page.title()) === "Fetch jobs", await page.title());
  check("no job is shown yet", await page.locator("#job").isHidden(), "a job");
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
  const known = await ask("/jobs/1");
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
  const last = await ask("/jobs/1");
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
  const drained = await ask("/jobs/4");
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
