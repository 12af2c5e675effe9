'use strict'
// A receiver as DT's documentation describes one, in Node with the npm package jsonwebtoken: the token is verified with
// the secret, and its checksum compared with that of the body as it came. It keeps nothing.

const cluster = require('node:cluster')
const crypto = require('node:crypto')
const http = require('node:http')
const jwt = require('jsonwebtoken')

// As text, jsonwebtoken tries at each token whether it is a public key, which takes most of the time. `PREPARED` spares that.
const text = process.env.DT_SIGNATURE_SECRET
const secret = process.env.PREPARED ? crypto.createSecretKey(Buffer.from(text)) : text
const workers = Number(process.env.WORKERS)

function isAuthentic (token, body) {
  try {
    const claims = jwt.verify(token, secret, { algorithms: ['HS256'] })
    return claims.checksum === crypto.createHash('sha1').update(body).digest('hex')
  } catch {
    return false
  }
}

function receive (request, response) {
  const pieces = []
  request.on('data', (piece) => pieces.push(piece))
  request.on('end', () => {
    const body = Buffer.concat(pieces)
    if (!isAuthentic(request.headers['x-dt-signature'], body)) {
      response.writeHead(401).end()
      return
    }
    const { event } = JSON.parse(body)
    response.writeHead(event.eventId ? 200 : 400).end()
  })
}

if (workers > 1 && cluster.isPrimary) {
  let listening = 0
  cluster.on('listening', (_, address) => {
    listening += 1
    // All share the port that the first was given.
    if (listening === workers) console.log(`127.0.0.1:${address.port}`)
  })
  for (let i = 0; i < workers; i += 1) cluster.fork()
} else {
  const server = http.createServer(receive)
  server.listen(0, '127.0.0.1', () => {
    if (!cluster.isWorker) console.log(`127.0.0.1:${server.address().port}`)
  })
}
