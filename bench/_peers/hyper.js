// hyperdht: its own network of nodes on the public server, a server behind one NAT, connections to it from the other.
// It measures the library as it is, but for one list: it refuses documentation addresses, which the lab is made of.
//
//   node hyper.js PACKAGES boot ADDRESS
//   node hyper.js PACKAGES {a|b} PATH COUNT CONCURRENCY TIMEOUT_S OWN PEER ADDRESS     (ADDRESS: of the bootstrap node)
//
// PATH, OWN and PEER are what others need. Side b ends when its input does. Both print one JSON line, as bench/_peers/talk.py does.
'use strict'
const { createRequire } = require('node:module')
const { performance } = require('node:perf_hooks')

const [packages, role, ...rest] = process.argv.slice(2)
const there = createRequire(packages + '/')
const bogon = there('bogon')
bogon.isReserved = () => false
bogon.isBogon = bogon.isPrivate
const DHT = there('hyperdht')

const PORT = 49737
const NODES = 12 // so many must agree on an address before a node believes it
const keyPair = DHT.keyPair(Buffer.alloc(32, 7)) // b's, so that a knows whom to call
const cpuSeconds = () => { const used = process.cpuUsage(); return (used.user + used.system) / 1e6 }

async function boot (host) {
  const nodes = []
  for (let i = 0; i < NODES; i++) {
    const bootstrap = i ? [{ host, port: PORT }] : []
    const node = new DHT({ ephemeral: false, firewalled: false, bootstrap, host: '0.0.0.0', port: PORT + i, anyPort: false })
    await node.fullyBootstrapped()
    nodes.push(node)
  }
  console.log('ready')
}

async function answer (host) {
  const dht = new DHT({ bootstrap: [{ host, port: PORT }] })
  await dht.fullyBootstrapped()
  const server = dht.createServer(stream => {
    stream.on('error', () => {})
    stream.on('data', data => stream.write(data))
  })
  await server.listen(keyPair)
  const used = cpuSeconds()
  console.log('ready')
  process.stdin.on('end', () => {
    console.log(JSON.stringify({ cpu_s: cpuSeconds() - used }))
    process.exit(0)
  })
  process.stdin.resume()
}

function attempt (dht, timeoutMs) {
  return new Promise(resolve => {
    const begun = performance.now()
    const stream = dht.connect(keyPair.publicKey, { localConnection: false, reusableSocket: false, keyPair: DHT.keyPair() })
    const timer = setTimeout(() => end(null), timeoutMs)
    const end = took => { clearTimeout(timer); stream.destroy(); resolve(took) }
    stream.on('error', () => end(null))
    stream.on('open', () => stream.write(Buffer.from('x')))
    stream.on('data', () => end(performance.now() - begun))
  })
}

async function call (count, concurrency, timeoutS, host) {
  const dht = new DHT({ bootstrap: [{ host, port: PORT }] })
  await dht.fullyBootstrapped()
  const times = []
  const begun = performance.now()
  const used = cpuSeconds()
  let next = 0
  const work = async () => {
    while (next++ < count) {
      const took = await attempt(dht, timeoutS * 1000)
      if (took !== null) times.push(took)
    }
  }
  await Promise.all(Array.from({ length: concurrency }, work))
  const seconds = (performance.now() - begun) / 1000
  console.log(JSON.stringify({ ok: times.length, times_ms: times, seconds, cpu_s: cpuSeconds() - used }))
  process.exit(0)
}

if (role === 'boot') boot(rest[0])
else if (role === 'b') answer(rest[6])
else call(Number(rest[1]), Number(rest[2]), Number(rest[3]), rest[6])
