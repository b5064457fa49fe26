// A page that submits a job, shows what it writes while it does, and can cancel it.
import { Client, HodeiError, type Job } from "@hodei/client/web";

const element = <T extends HTMLElement>(id: string) => document.getElementById(id) as T;
const form = element<HTMLFormElement>("form");
const run = element<HTMLButtonElement>("run");
const cancel = element<HTMLButtonElement>("cancel");
const state = element("state");
const output = element("output");

let job: Job | undefined;

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  const { url, token, script } = Object.fromEntries(new FormData(form)) as Record<string, string>;
  run.disabled = true;
  output.replaceChildren();
  state.textContent = "Submitting…";
  try {
    const client = new Client({ url: url!, token: token! });
    job = await client.submit(script!, { name: "from a page" });
    cancel.disabled = false;
    state.textContent = `Job ${job.id} runs.`;
    for await (const line of job.logs({ follow: true })) {
      const row = document.createElement("div");
      row.textContent = line.text; // never as HTML: a job may write anything
      output.append(row);
      output.scrollTop = output.scrollHeight;
    }
    await job.wait();
    state.textContent = `Job ${job.id} succeeded.`;
  } catch (error) {
    state.textContent = error instanceof HodeiError ? error.message : String(error);
  } finally {
    run.disabled = false;
    cancel.disabled = true;
  }
});

cancel.addEventListener("click", () => {
  job?.cancel({ reason: "canceled in the page" }).catch((error: unknown) => (state.textContent = String(error)));
});
