// One thing that a client of the Vercel AI SDK does, told as JSON: node clients.mjs URL KEY KIND MODEL WHAT
import { createAnthropic } from "@ai-sdk/anthropic";
import { createOpenAI } from "@ai-sdk/openai";
import { APICallError, generateText, Output, stepCountIs, streamText, tool } from "ai";
import { z } from "zod";

const [url, apiKey, kind, name, what] = process.argv.slice(2);
const prompt = "Hello there, who are you?";
const openai = createOpenAI({ baseURL: `${url}/v1`, apiKey });
const anthropic = createAnthropic({ baseURL: `${url}/v1`, apiKey });
const model = { chat: () => openai.chat(name), responses: () => openai.responses(name), messages: () => anthropic(name) }[kind]();
const asked = { model, prompt, maxRetries: 0 };

const weather = tool({
  description: "Tell the weather of a city.",
  inputSchema: z.object({ city: z.string() }),
  execute: async ({ city }) => `sunny in ${city}`,
});

const doings = {
  async whole() {
    const { text, usage, finishReason } = await generateText(asked);
    return { text, tokens: usage.totalTokens, finishReason };
  },
  async stream() {
    let failure;
    const answer = streamText({ ...asked, onError: ({ error }) => (failure = error) });
    let text = "";
    for await (const piece of answer.textStream) text += piece;
    if (failure) throw failure;
    return { text, tokens: (await answer.usage).totalTokens, finishReason: await answer.finishReason };
  },
  async tool() {
    const { text, steps } = await generateText({ ...asked, tools: { weather }, stopWhen: stepCountIs(3) });
    return { text, steps: steps.length };
  },
  async structured() {
    const output = Output.object({ schema: z.object({ name: z.string(), people: z.number() }) });
    return (await generateText({ ...asked, output })).output;
  },
  async leave() {
    const leaving = new AbortController();
    const answer = streamText({ ...asked, abortSignal: leaving.signal, onError: () => {} });
    for await (const piece of answer.textStream) {
      leaving.abort();
      return { piece };
    }
  },
};

try {
  console.log(JSON.stringify(await doings[what]()));
} catch (error) {
  if (!APICallError.isInstance(error)) throw error;
  const { statusCode, message, responseHeaders } = error;
  console.log(JSON.stringify({ status: statusCode, message, retryAfter: responseHeaders["retry-after"] ?? null }));
}
