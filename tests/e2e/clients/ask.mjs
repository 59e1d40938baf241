// Puts calls to OpenAI's JavaScript client: from a JSON list on standard input, answers as a JSON list.
import OpenAI from "openai";
import { text } from "node:stream/consumers";

const { baseURL, apiKey, calls } = JSON.parse(await text(process.stdin));
const client = new OpenAI({ baseURL, apiKey, maxRetries: 0, timeout: 120_000 });

async function pieces(stream, of) {
  const found = [];
  for await (const event of stream) found.push(of(event) ?? "");
  return { pieces: found.length, text: found.join("") };
}

const METHODS = {
  chat: async (body) => {
    const answer = await client.chat.completions.create(body);
    return { text: answer.choices[0].message.content, tokens: answer.usage.completion_tokens, model: answer.model };
  },
  chat_stream: async (body) =>
    pieces(await client.chat.completions.create({ ...body, stream: true }), (event) => event.choices[0]?.delta?.content),
  completion: async (body) => {
    const answer = await client.completions.create(body);
    return { text: answer.choices[0].text, tokens: answer.usage.completion_tokens, model: answer.model };
  },
  completion_stream: async (body) =>
    pieces(await client.completions.create({ ...body, stream: true }), (event) => event.choices[0]?.text),
  embedding: async (body) => ({ width: (await client.embeddings.create(body)).data[0].embedding.length }),
  models: async () => {
    const ids = [];
    for await (const model of client.models.list()) ids.push(model.id);
    return { ids };
  },
  model: async ({ model }) => ({ id: (await client.models.retrieve(model)).id }),
};

const answers = [];
for (const { method, body } of calls) {
  try {
    answers.push(await METHODS[method](body));
  } catch (error) {
    const { status = null, code = null, type = null, param = null, message } = error;
    answers.push({ raised: error.constructor.name, status, code, type, param, message });
  }
}
console.log(JSON.stringify(answers));
