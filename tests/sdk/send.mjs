// Sends one of everything with a real SDK, then flushes: node send.mjs segment|rudder URL MODULES
import { createRequire } from 'node:module'
import path from 'node:path'

const [, , sdk, url, modules] = process.argv
const require = createRequire(path.join(modules, 'package.json'))
const when = new Date('2026-11-22T10:00:00.250Z')
const context = {
  app: { name: 'Shop', version: '5.3.0' },
  os: { name: 'iOS', version: '18.1' },
  device: { id: 'idfv-1', model: 'iPhone15,2' },
  locale: 'de-DE',
}
// each SDK's own name for the time at which the event was
const time = sdk === 'segment' ? { timestamp: when } : { originalTimestamp: when }
const base = { userId: `${sdk}-user`, anonymousId: `${sdk}-anonymous`, ...time, context }
const calls = [
  ['track', { ...base, event: 'Größe ☃ "gewählt"', properties: { price: 9.5, tags: ['a', null], nested: { deep: true } } }],
  ['identify', { ...base, traits: { plan: 'free', email: 'a@example.com' } }],
  ['screen', { ...base, name: 'Home', category: 'Start', properties: { from: 'push' } }],
  ['page', { ...base, name: 'Landing', properties: { url: 'https://example.com/?q=1' } }],
  ['group', { ...base, groupId: 'g-1', traits: { seats: 3 } }],
  ['alias', { userId: base.userId, previousId: 'old-1', ...time, context }],
]

if (sdk === 'segment') {
  const { Analytics } = require('@segment/analytics-node')
  const analytics = new Analytics({ writeKey: 'key', host: url, path: '/v1/batch', flushAt: 3, maxRetries: 5 })
  for (const [kind, message] of calls) analytics[kind](message)
  await analytics.closeAndFlush()
} else {
  const module = require('@rudderstack/rudder-sdk-node')
  const Analytics = module.default ?? module
  const analytics = new Analytics('key', { dataPlaneUrl: url, flushAt: 3, flushInterval: 50 })
  for (const [kind, message] of calls) analytics[kind](message)
  await analytics.flush()
}
